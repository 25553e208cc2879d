"""UrbanSyn: rendered streets with cars and people.

Raw layout: ``RAW/rgb/rgb_0001.png`` and ``RAW/depth/depth_0001.exr`` (planar depth in units of 100 km, in 16 bits),
with one camera for all in ``RAW/camera_metadata.json``: focal length and size of the sensor in millimetres.

Source: the data set's page UrbanSyn/UrbanSyn on the hub, arXiv 2312.12176.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datamodules.sources.array_files import read_array_file
from datamodules.sources.planar_frames import Measured, Pixels, PlanarFrame, PlanarFrames
from datamodules.sources.registry import raw_dataset
from geometry.errors import InputError
from geometry.files.json_text import is_finite_number, parse_json
from geometry.files.limits import MAX_JSON_BYTES
from geometry.files.reading import read_regular_file

_METRES_PER_UNIT = 1e5
_HELD_OUT = "held_out"
_NAMES = ("focalLength_mm", "sensorWidth_mm", "sensorHeight_mm")


@raw_dataset
@dataclass(frozen=True)
class UrbanSyn(PlanarFrames):
    """Prepare UrbanSyn.

    Attributes:
        size: Height and width of the samples; the frames have 1024 2048.
        val_frames: How many frames, of the highest numbers, are held out for validation; there are no scenes.
    """

    size: Pixels = (512, 1024)
    name: str = "urbansyn"
    val_frames: int = 0

    source: ClassVar[str] = "urbansyn"
    example: ClassVar[str] = "rgb/rgb_0001.png"
    # Half precision, and below 6 m its smallest step, 2**-24 of 100 km.
    relative_error: ClassVar[float] = 2.0**-11
    error_m: ClassVar[float] = 0.5 * 2.0**-24 * _METRES_PER_UNIT

    def options(self) -> dict[str, object]:
        """Return the choices that shape the samples."""
        return super().options() | {"val_frames": self.val_frames}

    @property
    def held_out(self) -> tuple[str, ...]:
        """The frames that are held out are the scene that is."""
        return (_HELD_OUT,) if self.val_frames else ()

    def scan(self) -> list[PlanarFrame]:
        """Return all frames; those that are held out are a scene of their own."""
        found = self.find("rgb/rgb_*.png", r"rgb/rgb_(\d+)\.png")
        numbers = sorted((int(match[1]), match[1], path) for path, match in found)
        if self.val_frames and not 0 < self.val_frames < len(numbers):
            raise InputError(f"val_frames must be fewer than the {len(numbers)} frames, and not negative.")
        first = len(numbers) - self.val_frames
        scenes = ["street" if index < first else _HELD_OUT for index in range(len(numbers))]
        return [PlanarFrame(scene, path, (text,)) for scene, (_, text, path) in zip(scenes, numbers, strict=True)]

    def read(self, frame: PlanarFrame, size: tuple[int, int]) -> Measured:
        """Return the truth of a frame: see ``PlanarFrames``."""
        stored = read_array_file(self.raw / "depth" / f"depth_{frame.parts[0]}.exr", 1)
        height, width = size
        focal, sensor_width, sensor_height = read_camera(self.raw / "camera_metadata.json")
        numbers = (focal / sensor_width * width, focal / sensor_height * height, width / 2, height / 2)
        return Measured(stored.astype("float32") * _METRES_PER_UNIT, numbers, "camera_metadata.json")


def read_camera(path: Path) -> tuple[float, float, float]:
    """Return focal length, width and height of the sensor, all in millimetres.

    Raises:
        InputError: the file is missing or says something else.
    """
    try:
        content: Any = parse_json(read_regular_file(path, MAX_JSON_BYTES))
        numbers = tuple(content["parameters"][0]["Camera"][name] for name in _NAMES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). It holds the camera of all frames.") from error
    except (InputError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} must hold parameters[0].Camera with {', '.join(_NAMES)} ({error}).") from error
    if not all(is_finite_number(number) and number > 0 for number in numbers):
        raise InputError(f"{path}: {', '.join(_NAMES)} must be numbers above 0, not {numbers}.")
    return numbers
