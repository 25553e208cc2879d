import pytest
import torch

from benchmarks.cuda_graph import CudaGraph
from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.helpers.tiny import build_base, make_batch


@pytest.mark.gpu
def test_a_recorded_estimator_predicts_what_it_predicted_before(tmp_path):
    estimator = SingleStepEstimator(StableDiffusion(str(build_base(tmp_path))), Depth()).cuda().eval()
    images = [make_batch(1, seed=seed).image.cuda() for seed in range(3)]
    graph = CudaGraph(estimator, images[0])
    with torch.no_grad():
        expected = [estimator(image) for image in images]
    for image, wanted in zip(images, expected, strict=True):
        torch.testing.assert_close(graph(image), wanted, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="recorded for"):
        graph(images[0][:, :, :16])
