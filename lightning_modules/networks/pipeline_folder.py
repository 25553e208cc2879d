"""How a base family is handed over as a folder that stock diffusers runs without code of ours, and read again."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from geometry.errors import InputError
from geometry.files.json_text import read_json_file
from geometry.files.writing import write_whole
from geometry.modalities import Modality
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.sampling import Sampling

# Written into every export: what a diffusers folder alone does not say.
EXPORT_RECORD = "onestep.json"
#: How diffusers marks weights in a smaller type that lie beside those in float32.
VARIANTS = {"float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class PipelineModel:
    """A network, and what a pipeline must do to predict as its estimator does.

    Attributes:
        network: the network.
        modality: what it predicts.
        sampling: the steps that it denoises in; None is a single step.
    """

    network: LatentNetwork
    modality: Modality
    sampling: Sampling | None = None


class PipelineFolder(ABC):
    """How a base family is written as a folder for a stock pipeline of diffusers, and read again.

    A subclass is known by being defined. Export checks what was written against the checkpoint.

    Attributes:
        network: class of the networks that are written.
        pipelines: names of the classes of pipelines whose folders ``read`` understands.
    """

    network: ClassVar[type[LatentNetwork]]
    pipelines: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**options)
        _FOLDERS[cls.network] = cls

    @abstractmethod
    def write(self, model: PipelineModel, base: str, folder: Path, dtype: str, processing_res: int) -> None:
        """Write a model in float32, and in a smaller type beside it if asked.

        Args:
            model: a trained model; it stays as it is.
            base: folder or hub id of the base, for the parts that a network does not keep.
            folder: where to; must be empty.
            dtype: float32; or one of ``VARIANTS``, which adds weights in that type.
            processing_res: longest side, in pixels, at which the pipeline sees images by default.

        Raises:
            InputError: stock diffusers cannot do what the model does, or the base is out of reach.
        """

    @abstractmethod
    def predictions(
        self, folder: Path, images: Sequence[np.ndarray], seeds: Sequence[int], variant: str | None
    ) -> Iterator[np.ndarray]:
        """Yield what stock diffusers predicts from a written folder, at native size: for every image, for every seed.

        Args:
            folder: the export.
            images: (H,W,3) uint8 each.
            seeds: of the pipeline's noise.
            variant: of the weights; None is float32. Arithmetic is in float32 in any case.

        Yields:
            float32: published predictions, (H,W) for a single channel, else (H,W,C).
        """

    @abstractmethod
    def usage(self, model: PipelineModel, variant: str | None) -> str:
        """Return how a written folder is used, for its card, in Markdown.

        Args:
            model: what was written.
            variant: of the smaller weights, if there are any.
        """

    @abstractmethod
    def read(self, source: str) -> PipelineModel:
        """Return the model of a folder.

        Args:
            source: folder, or hub id, of one of ``pipelines``.

        Raises:
            InputError: it cannot be read, or means something that this project does not do.
        """


_FOLDERS: dict[type[LatentNetwork], type[PipelineFolder]] = {}


def pipeline_folders() -> list[PipelineFolder]:
    """Return all that are defined."""
    return [kind() for kind in _FOLDERS.values()]


def pipeline_folder(network: LatentNetwork) -> PipelineFolder:
    """Return how a network is written as a folder.

    Args:
        network: the network.

    Raises:
        InputError: no pipeline of diffusers holds one of its class.
    """
    for kind in type(network).__mro__:
        if kind in _FOLDERS:
            return _FOLDERS[kind]()
    raise InputError(
        f"no pipeline of diffusers holds a {type(network).__name__}; export it with --format torch or onnx."
    )


def save_pipeline(pipeline: Any, parts: Iterable[nn.Module], folder: Path, dtype: str) -> None:  # noqa: ANN401
    """Write a pipeline of diffusers without the folders that its parts were loaded from.

    Args:
        pipeline: the pipeline, in float32.
        parts: its models; they end in the smaller type, if there is one.
        folder: where to.
        dtype: float32; or one of ``VARIANTS``, which adds weights in that type.
    """
    pipeline.save_pretrained(folder, safe_serialization=True)
    if dtype in VARIANTS:
        for part in parts:
            nn.Module.to(part, getattr(torch, dtype))
        pipeline.save_pretrained(folder, variant=VARIANTS[dtype], safe_serialization=True)
    for file in folder.glob("**/*config.json"):
        config = read_json_file(file)
        if config.pop("_name_or_path", None) is not None:
            write_whole(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_pipeline(folder: Path, variant: str | None, **options: Any) -> Any:  # noqa: ANN401
    """Return a written pipeline as diffusers loads it, computing in float32.

    Args:
        folder: the export.
        variant: of the weights; None is float32.
        **options: of ``from_pretrained``.
    """
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(
        str(folder), variant=variant, dtype=torch.float32, local_files_only=True, **options
    )
