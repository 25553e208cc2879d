"""Rendered clips whose depth is known, and a predictor that knows it up to a scale and shift of each frame."""

import av
import numpy as np
from PIL import Image

from geometry.modalities import Depth

SIZE = (48, 64)


def rendered(num_frames, size=SIZE, moves=True):
    """Images (T,H,W,3) uint8 and relative depth (T,H,W): a ball that rolls past a slanted wall; the camera stands."""
    v, u = np.mgrid[: size[0], : size[1]].astype(float)
    wall = 0.4 + 0.5 * u / size[1] + 0.1 * v / size[0]
    texture = 90 + 60 * np.sin(u / 3) * np.cos(v / 4)
    images, depths = [], []
    for number in range(num_frames):
        centre = 8 + (2 * number if moves else 0)
        ball = (u - centre) ** 2 + (v - 30) ** 2 < 64
        depth = np.where(ball, 0.1, wall)
        shade = np.where(ball, 220, texture)
        images.append(np.repeat(shade[..., None], 3, axis=2).astype(np.uint8))
        depths.append(depth)
    return np.stack(images), np.stack(depths)


def write_frames(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"frame_{number:03d}.png")
    return folder


def write_video(file, images, rate=10, rotation=0):
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        if rotation:
            stream.set_display_rotation(rotation)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file


def read_video(file):
    with av.open(str(file)) as container:
        (stream,) = container.streams.video
        name, rate = stream.codec_context.name, stream.average_rate
        return name, rate, np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


class KnowsDepth:
    """Stands for a ``Predictor``: returns the depth of the frames in their order, each in a scale and shift of its own.

    Args:
        depths: (T,H,W) in [0, 1].
        varies: whether scale and shift differ from frame to frame.
        noise: deviation of noise on the predictions.
        modality: what is predicted.
    """

    uncertainty = None

    def __init__(self, depths, varies=True, noise=0.0, modality=None):
        self.modality = modality or Depth()
        generator = np.random.default_rng(0)
        scales, shifts = generator.uniform(0.3, 0.6, len(depths)), generator.uniform(0.0, 0.3, len(depths))
        if not varies:
            scales[:], shifts[:] = 0.5, 0.2
        noisy = depths + noise * generator.normal(size=depths.shape)
        self.predictions = iter((scales[:, None, None] * noisy + shifts[:, None, None]).astype(np.float32))

    def needs_tiles(self, height, width):
        return False

    def predict(self, images):
        return [next(self.predictions) for _ in images]
