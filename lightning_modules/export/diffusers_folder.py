"""The diffusers format: a folder that a stock pipeline loads without custom code, as the network's family writes it."""

from pathlib import Path

from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.networks.pipeline_folder import PipelineModel, pipeline_folder
from lightning_modules.trained_on import default_resolution


def write_diffusers(model: LoadedModel, folder: Path, dtype: str) -> None:
    """Write a model in float32, and in a smaller type beside it if asked.

    Args:
        model: a trained model.
        folder: where to; must be empty.
        dtype: float32; or float16 or bfloat16, which add the variant fp16 or bf16.

    Raises:
        InputError: no pipeline of diffusers holds the model, or its base is out of reach.
    """
    writer = pipeline_folder(model.estimator.network)
    writer.write(pipeline_model(model), model.base, folder, dtype, default_resolution(model.estimator.trained_on))


def pipeline_model(model: LoadedModel) -> PipelineModel:
    """Return what a family must know of a model to write its folder.

    Args:
        model: a trained model.
    """
    estimator = model.estimator
    sampling = estimator.sampling if isinstance(estimator, DiffusionEstimator) else None
    return PipelineModel(estimator.network, estimator.task.modality, sampling)
