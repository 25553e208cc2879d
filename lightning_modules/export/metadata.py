"""What a program's file says of itself, for those who get the file alone."""

from lightning_modules.export.licence import licence_of, public_name
from lightning_modules.inference.loading import LoadedModel
from lightning_modules.trained_on import default_resolution

# Published vectors are in this frame, whichever the network predicts in: x right, y up, z toward the viewer.
PUBLISHED_FRAME = "opengl"


def program_metadata(model: LoadedModel) -> dict[str, str]:
    """Return texts by name: what goes in, what comes out, what it was trained on, and the licence.

    Args:
        model: the model that the program is traced from.
    """
    estimator = model.estimator
    modality, trained = estimator.task.modality, estimator.trained_on
    low, high = modality.value_range
    facts = {
        "input": "image: (batch, 3, height, width) float32 in [0, 1], RGB",
        "output": f"prediction: (batch, {modality.num_channels}, height, width) float32",
        "modality": modality.name,
        "meaning": modality.describe_published(),
        "frame": PUBLISHED_FRAME if modality.frame else "",
        "range": f"{low:g} to {high:g}",
        "size_multiple": str(estimator.network.size_multiple),
        "processing_res": str(default_resolution(trained)),
        "trained_at": trained.sizes_text() if trained else "",
        "step": "" if model.step is None else str(model.step),
        "base": public_name(model.base) or "",
        "licence": licence_of(model.base) or "",
    }
    return {name: text for name, text in facts.items() if text}
