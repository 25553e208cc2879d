"""A video: each frame predicted, all brought to one scale and shift, written as a video and as 16-bit frames."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from geometry.alignment.successive import FrameAligner
from geometry.errors import InputError
from geometry.files.storage import concerns_all_files
from geometry.files.writing import write_whole
from lightning_modules.command_line.tables import format_csv
from lightning_modules.inference.batch_run import reason_of
from lightning_modules.inference.predictor import Predictor
from lightning_modules.inference.results import make_output, npy_bytes, png16_bytes, sample_of, visualise
from lightning_modules.inference.video.flicker import Flicker, still_pixels
from lightning_modules.inference.video.reading import Clip, Frame, open_clip
from lightning_modules.inference.video.writing import written_video

_MOST_IN_WINDOW = 1000


@dataclass(frozen=True)
class VideoSummary:
    """What is known of a video that was predicted, as its JSON file holds it.

    Attributes:
        frames: how many there are.
        flicker: mean change of pixels that stand still, by the range of published values; None if none does.
        flicker_unaligned: the same of the frames before they were aligned.
        window: how many frames before it each was aligned to; None where the modality needs no alignment.
        frames_per_second: of the video.
    """

    frames: int
    flicker: float | None
    flicker_unaligned: float | None
    window: int | None
    frames_per_second: float

    def sentence(self) -> str:
        """Return what is to be said of it."""
        if self.flicker is None or self.flicker_unaligned is None:
            return f"{self.frames} frames; no pixel stands still, so there is no flicker to measure"
        before = "" if self.window is None else f", {100 * self.flicker_unaligned:.3g} % before alignment"
        return f"{self.frames} frames; flicker {100 * self.flicker:.3g} % of the range where nothing moves{before}"


@dataclass(frozen=True)
class VideoRun:
    """Predicts videos into a folder.

    For a video NAME, the folder gets NAME_depth.mp4 (colours), NAME_depth/000001.png (16 bits) and so on,
    NAME_depth.csv (scale and shift of each frame) and NAME_depth.json (see ``VideoSummary``); the modality stands in
    place of depth.
    Between the two passes over a video, its predictions lie in a hidden folder beside these, 4 bytes per value.

    Attributes:
        predictor: the model.
        output: folder of the results.
        window: how many frames before it a frame is aligned to.
        batch_size: frames that are computed at once.
        fps: frames per second of a folder of frames.
        overwrite: predict videos whose results are there already.

    Raises:
        InputError: an option makes no sense, or the output cannot be a folder.
    """

    predictor: Predictor
    output: Path
    window: int
    batch_size: int
    fps: float
    overwrite: bool

    def __post_init__(self) -> None:
        if not 1 <= self.window <= _MOST_IN_WINDOW:
            raise InputError(f"--window must lie between 1 and {_MOST_IN_WINDOW}, got {self.window}.")
        if self.batch_size < 1:
            raise InputError(f"--batch_size must be at least 1, got {self.batch_size}.")
        if not 0.1 <= self.fps <= _MOST_IN_WINDOW:
            raise InputError(f"--fps must lie between 0.1 and {_MOST_IN_WINDOW}, got {self.fps}.")
        make_output(self.output)

    def predict(self, path: Path, show_progress: bool = True) -> VideoSummary | None:
        """Predict a video and return its summary; None if its results are there already.

        Args:
            path: a video file, or a folder of frames.
            show_progress: show a progress bar.

        Raises:
            InputError: it cannot be read, predicted or written.
        """
        name = f"{path.stem if path.is_file() else path.resolve().name}_{self.predictor.modality.name}"
        if not self.overwrite and all((self.output / f"{name}{end}").is_file() for end in (".json", ".mp4", ".csv")):
            return None
        waiting = self.output / f".unaligned-{name}"
        shutil.rmtree(waiting, ignore_errors=True)
        try:
            waiting.mkdir()
            with open_clip(path, self.fps) as clip:
                found = self._first_pass(clip, waiting, show_progress)
                return self._second_pass(found, clip.rate, waiting, name)
        except OSError as error:
            if concerns_all_files(error):
                raise InputError(
                    f"--output {self.output} cannot be written to ({error.strerror}): make room."
                ) from error
            raise
        finally:
            shutil.rmtree(waiting, ignore_errors=True)

    def _first_pass(self, clip: Clip, waiting: Path, show_progress: bool) -> "_Frames":
        """Predict the frames, store them, and find the scale and shift of each."""
        modality, aligner, found = self.predictor.modality, FrameAligner(self.window), _Frames()
        flicker, before = Flicker(), None
        for frame, prediction in tqdm(self._predicted(clip), unit="frame", disable=not show_progress):
            if not np.isfinite(prediction).all():
                raise InputError(f"the prediction of frame {frame.name} is not finite; try --precision float32.")
            still = still_pixels(frame.image, before)
            flicker.add(prediction, still)
            write_whole(waiting / f"{frame.name}.npy", npy_bytes(prediction))
            if still is not None:
                write_whole(waiting / f"{frame.name}_still.npy", npy_bytes(np.packbits(still, axis=1)))
            scale, shift = 1.0, 0.0
            if modality.varies_by_image:
                affine = modality.to_affine(torch.from_numpy(prediction))
                scale, shift = aligner.fit(affine)
                found.extend_range(scale * float(affine.min()) + shift, scale * float(affine.max()) + shift)
            found.names.append(frame.name)
            found.fits.append((scale, shift))
            before = frame.image
        found.flicker_unaligned = flicker.value(modality.value_range)
        return found

    def _second_pass(self, found: "_Frames", rate: Fraction, waiting: Path, name: str) -> VideoSummary:
        """Write the frames in one range for the whole video."""
        modality, flicker = self.predictor.modality, Flicker()
        folder = self.output / name
        folder.mkdir(exist_ok=True)
        for old in folder.glob("[0-9]" * 6 + ".png"):
            old.unlink()
        limits = self._color_limits(found, waiting)
        with written_video(self.output / f"{name}.mp4", rate) as add_frame:
            for number, frame in enumerate(found.names):
                aligned = self._aligned(found, number, waiting)
                still_file = waiting / f"{frame}_still.npy"
                still = None
                if still_file.is_file():
                    still = np.unpackbits(np.load(still_file), axis=1, count=aligned.shape[1]).astype(bool)
                flicker.add(aligned, still)
                write_whole(folder / f"{frame}.png", png16_bytes(modality, aligned))
                add_frame(visualise(modality, aligned, limits))
        summary = VideoSummary(
            len(found.names),
            flicker.value(modality.value_range),
            found.flicker_unaligned,
            self.window if modality.varies_by_image else None,
            float(rate),
        )
        write_whole(self.output / f"{name}.csv", found.table(float(rate)))
        write_whole(self.output / f"{name}.json", json.dumps(asdict(summary), indent=1) + "\n")
        return summary

    def _predicted(self, clip: Clip) -> Iterator[tuple[Frame, np.ndarray]]:
        """Yield frames with their predictions, computed in batches."""
        group: list[Frame] = []
        for frame in clip.frames:
            group.append(frame)
            if len(group) == self.batch_size or self.predictor.needs_tiles(*frame.image.shape[:2]):
                yield from self._predicted_group(group)
                group = []
        if group:
            yield from self._predicted_group(group)

    def _predicted_group(self, group: list[Frame]) -> list[tuple[Frame, np.ndarray]]:
        try:
            predictions = self.predictor.predict([frame.image for frame in group])
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"frame {group[0].name} cannot be predicted: {reason_of(error)}") from error
        return list(zip(group, predictions, strict=True))

    def _aligned(self, found: "_Frames", number: int, waiting: Path) -> np.ndarray:
        """Return a frame's published prediction after its scale and shift, in the range of the video."""
        prediction = np.load(waiting / f"{found.names[number]}.npy")
        modality = self.predictor.modality
        if not modality.varies_by_image:
            return prediction
        scale, shift = found.whole_fit(number)
        affine = modality.to_affine(torch.from_numpy(prediction)).double() * scale + shift
        return modality.from_affine(affine.clamp(*modality.value_range).float()).numpy()

    def _color_limits(self, found: "_Frames", waiting: Path) -> torch.Tensor | None:
        """Return the colours' range: that of a few frames from beginning to end."""
        step = len(found.names) // 16 + 1
        some = [self._aligned(found, number, waiting) for number in range(0, len(found.names), step)]
        return self.predictor.modality.color_limits(sample_of(np.concatenate(some)))


@dataclass
class _Frames:
    """Names and fits of the frames of a video, and the range of all of them."""

    names: list[str] = field(default_factory=list)
    fits: list[tuple[float, float]] = field(default_factory=list)
    flicker_unaligned: float | None = None
    _range: tuple[float, float] | None = None

    def extend_range(self, low: float, high: float) -> None:
        """Let the range hold two further values."""
        before = self._range or (low, high)
        self._range = min(before[0], low), max(before[1], high)

    def whole_fit(self, number: int) -> tuple[float, float]:
        """Return the scale and shift of a frame after which all frames of the video span 0 to 1."""
        assert self._range is not None
        low, high = self._range
        scale, shift = self.fits[number]
        span = high - low or 1.0
        return scale / span, (shift - low) / span

    def table(self, rate: float) -> str:
        """Return the fits as CSV."""
        rows = [["frame", "time_s", "scale", "shift"]]
        for number, name in enumerate(self.names):
            scale, shift = self.whole_fit(number) if self._range else self.fits[number]
            rows.append([name, f"{number / rate:.6f}", f"{scale:.9g}", f"{shift:.9g}"])
        return format_csv(rows)
