"""What a model was trained on, as far as those who use it must know: sizes of images, and what its values mean."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from geometry.errors import InputError
from geometry.modalities import Modality

CHECKPOINT_KEY = "trained_on"
# The processing resolution of models that do not say at which they were trained: that of the published ones.
DEFAULT_PROCESSING_RES = 768
# A processing resolution that differs from the training's by a larger factor is warned of.
_FAR_OFF = 1.5
_MOST_PIXELS = 1 << 20
_LISTS_TOO = Strict(False)  # JSON has no tuples


@with_config(ConfigDict(strict=True, extra="ignore"))
class TrainedOnRecord(TypedDict):
    """The plain values of ``TrainedOn``, as checkpoints and exports hold them."""

    processing_res: int
    image_sizes: dict[str, Annotated[tuple[int, int], _LISTS_TOO]]
    modality: str
    frame: str | None
    value_range: Annotated[tuple[float, float], _LISTS_TOO]


_RECORD: TypeAdapter[Any] = TypeAdapter(TrainedOnRecord)


@dataclass(frozen=True)
class TrainedOn:
    """What a model was trained on, and what its values mean.

    Attributes:
        processing_res: longest side in pixels at which the network should see an image; 0 is the image's own size.
        image_sizes: (height, width) of the images of every data set, by name, the one with the largest weight first;
            empty of a model from elsewhere.
        modality: name of what is predicted; of several, joined by +.
        frame: camera frame of the network's vectors; None where there are none.
        value_range: smallest and largest published value.
    """

    processing_res: int
    image_sizes: dict[str, tuple[int, int]]
    modality: str
    frame: str | None
    value_range: tuple[float, float]

    def to_record(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def of(self, modalities: Sequence[Modality]) -> "TrainedOn":
        """Return the same for some of the modalities.

        Args:
            modalities: which.
        """
        return replace(self, **_meaning(modalities))

    def sizes_text(self) -> str:
        """Return the sizes for people, for instance ``64x96 pixels``; empty if they are not known."""
        sizes = dict.fromkeys(f"{height}x{width}" for height, width in self.image_sizes.values())
        return f"{' and '.join(sizes)} pixels" if sizes else ""


def describe_training(image_sizes: Mapping[str, tuple[int, int]], modalities: Sequence[Modality]) -> TrainedOn:
    """Return what a model is trained on.

    Args:
        image_sizes: (height, width) by data set, the most important one first.
        modalities: what is predicted.
    """
    sizes = {name: (int(height), int(width)) for name, (height, width) in image_sizes.items()}
    return TrainedOn(
        processing_res=max(next(iter(sizes.values()), (DEFAULT_PROCESSING_RES,))),
        image_sizes=sizes,
        **_meaning(modalities),
    )


def read_record(record: Mapping[str, Any], place: object) -> TrainedOn:
    """Return what a file says that its model was trained on.

    Args:
        record: plain values, from a checkpoint or from JSON.
        place: the file, for messages.

    Raises:
        InputError: they say something else.
    """
    try:
        found = _RECORD.validate_python(record)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InputError(
            f"{place}: {CHECKPOINT_KEY}: {'/'.join(map(str, problem['loc']))}: {problem['msg']}."
        ) from error
    if not 0 <= found["processing_res"] <= _MOST_PIXELS:
        raise InputError(f"{place}: {CHECKPOINT_KEY}: {found['processing_res']} is no processing resolution.")
    return TrainedOn(**{name: found[name] for name in TrainedOn.__dataclass_fields__})


def check_same_values(trained: TrainedOn, modalities: Sequence[Modality], place: object) -> None:
    """Check that weights are used for what they were trained to predict.

    Args:
        trained: what the weights were trained on.
        modalities: what they are to predict.
        place: the file of the weights.

    Raises:
        InputError: another modality, or another frame.
    """
    meaning = _meaning(modalities)
    here = (meaning["modality"], meaning["frame"])
    if here != (trained.modality, trained.frame):
        raise InputError(
            f"{place} was trained to predict {_named(trained.modality, trained.frame)}, and the configuration says "
            f"{_named(*here)}. Give the configuration that it was trained with."
        )


def default_resolution(trained: TrainedOn | None) -> int:
    """Return the processing resolution that holds where none is chosen.

    Args:
        trained: what the model was trained on; None if it does not say.
    """
    return DEFAULT_PROCESSING_RES if trained is None else trained.processing_res


def concern(processing_res: int, trained: TrainedOn | None) -> str:
    """Return what is to be said of a processing resolution: that the model does not know, or that it is far off.

    Args:
        processing_res: longest side in pixels at which the network sees images.
        trained: what the model was trained on; None if it does not say.

    Returns:
        A sentence, or nothing.
    """
    if trained is None or not trained.processing_res or not processing_res:
        return ""
    factor = processing_res / trained.processing_res
    if 1 / _FAR_OFF <= factor <= _FAR_OFF:
        return ""
    trained_at = trained.sizes_text() or f"{trained.processing_res} pixels"
    return (
        f"a processing resolution of {processing_res} is far from that of the training ({trained_at}); predictions may "
        f"be wrong. {trained.processing_res} is right."
    )


def _meaning(modalities: Sequence[Modality]) -> dict[str, Any]:
    """Return what values mean, of all modalities together: names joined by +, frames too, the range of all."""
    frames = [modality.frame for modality in modalities if modality.frame]
    ranges = [modality.value_range for modality in modalities]
    return {
        "modality": "+".join(modality.name for modality in modalities),
        "frame": "+".join(frames) or None,
        "value_range": (float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))),
    }


def _named(modality: str, frame: str | None) -> str:
    return f"{modality} in the frame {frame}" if frame else modality
