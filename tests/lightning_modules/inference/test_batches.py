"""Predictions of images that are computed at once."""

import numpy as np

from lightning_modules.inference import Predictor
from tests.lightning_modules.inference.runs import make_run, photo


def test_images_at_once_get_what_each_gets_alone(tmp_path):
    run = make_run(tmp_path / "run", task="Normals", noise="none", vae_factor=2)
    predictor = Predictor.load(run, processing_res=0, device="cpu")
    images = [photo(56, 32, seed) for seed in range(2)]
    for image, together in zip(images, predictor.predict(images), strict=True):
        assert np.abs(predictor(image) - together).max() < 5e-5
