"""Ten lines of Python that run a written program on a photo, for its card: they run as they stand."""

from geometry.modalities import Modality
from lightning_modules.export.programs import ONNX_FILE, TORCH_FILE

_LOAD = 'photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")'
_RUN = "  # pads to multiples of {} and crops by itself"


def torch_snippet(modality: Modality, processing_res: int, size_multiple: int) -> list[str]:
    """Return the lines for a ``torch.export`` program: they need torch, NumPy and Pillow.

    Args:
        modality: what is predicted.
        processing_res: longest side in pixels at which the network should see the photo; 0 is its own size.
        size_multiple: of what both sides of the network's input are multiples.
    """
    resized = [
        f"size = [max(1, side * {processing_res} // max(photo.size)) for side in (photo.height, photo.width)]",
        'image = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)',
    ]
    unit = "prediction = prediction / prediction.norm(dim=0, keepdim=True).clamp(min=1e-6)  # unit vectors again"
    return [
        "import numpy, torch",
        "from PIL import Image, ImageOps",
        "",
        _LOAD,
        "image = torch.from_numpy(numpy.array(photo)).permute(2, 0, 1)[None] / 255",
        *(resized if processing_res else []),
        f'program = torch.export.load("{TORCH_FILE}").module()',
        f"prediction = program(image).detach(){_RUN.format(size_multiple)}",
        'prediction = torch.nn.functional.interpolate(prediction, photo.size[::-1], mode="bilinear")[0]',
        *([unit] if modality.frame else []),
        f'numpy.save("{modality.name}.npy", prediction.numpy())  # {_shape(modality)}',
    ]


def onnx_snippet(modality: Modality, processing_res: int, size_multiple: int) -> list[str]:
    """Return the lines for an ONNX graph: they need ONNX Runtime, NumPy and Pillow.

    Args:
        modality: what is predicted.
        processing_res: longest side in pixels at which the network should see the photo; 0 is its own size.
        size_multiple: of what both sides of the network's input are multiples.
    """
    side = f"max(1, side * {processing_res} // max(photo.size))" if processing_res else "side"
    unit = "prediction /= numpy.linalg.norm(prediction, axis=0).clip(1e-6)  # unit vectors again"
    return [
        "import numpy, onnxruntime",
        "from PIL import Image, ImageOps",
        "",
        _LOAD,
        f"size = [{side} for side in photo.size]",
        'channels = [channel.convert("F").resize(size, Image.Resampling.BILINEAR) for channel in photo.split()]',
        "image = numpy.stack(channels)[None] / numpy.float32(255)",
        f'session = onnxruntime.InferenceSession("{ONNX_FILE}", providers=["CPUExecutionProvider"])',
        f'prediction = session.run(None, {{"image": image}})[0][0]{_RUN.format(size_multiple)}',
        "channels = [Image.fromarray(channel).resize(photo.size, Image.Resampling.BILINEAR) for channel in prediction]",
        "prediction = numpy.stack(channels)",
        *([unit] if modality.frame else []),
        f'numpy.save("{modality.name}.npy", prediction)  # {_shape(modality)}',
    ]


def _shape(modality: Modality) -> str:
    return f"({modality.num_channels},H,W) float32, of the size of the photo"
