"""Which predictions may be made from inputs with a colour cast."""

from geometry.errors import InputError


def check_color_cast(modality: str) -> None:
    """Check that inputs may get the colour cast that a published evaluation of normals gives them.

    Args:
        modality: name of what is predicted.

    Raises:
        InputError: it is something else.
    """
    if modality != "normals":
        raise InputError(f"data.color_cast repeats an evaluation of normals; the task predicts {modality}.")
