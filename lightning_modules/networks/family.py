"""What a family of bases is: the parts of its folders, and how they become codec, denoiser and noise process."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from torch import Tensor, nn

from geometry.errors import InputError, one_line
from lightning_modules.networks.base_files import MODEL, PROCESSOR, SCHEDULER, TEXT_ENCODER, TOKENIZER, Base, Part
from lightning_modules.networks.codec import AutoencoderKLCodec, Codec
from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.flow_matching import FlowMatching
from lightning_modules.networks.noise_process import NoiseProcess
from lightning_modules.networks.pretrained import load_part

# Dots in the name of a module in networks/; those in folders of it have more.
_DOTS_IN_NETWORKS = 2
_KINDS = {
    "tokenizer": TOKENIZER,
    "processor": PROCESSOR,
    "scheduler": SCHEDULER,
    "text_encoder": TEXT_ENCODER,
}


class Family(ABC):
    """A family of bases that share their layout: a folder in ``networks/`` with a file ``family.py``.

    A subclass is known by being defined: bases name one of its pipelines in their ``model_index.json``.
    """

    #: Names of the pipelines of diffusers whose folders are bases of this family; the first is the plain one.
    pipelines: ClassVar[tuple[str, ...]]
    #: Classes that a part may have, by the names of the parts; the denoiser comes first, then the VAE.
    classes: ClassVar[Mapping[str, tuple[str, ...]]]
    #: Parts that a base may leave out.
    optional: ClassVar[tuple[str, ...]] = ()
    #: Parts that have no influence on what is used here.
    idle: ClassVar[tuple[str, ...]] = ("image_encoder", "feature_extractor", "safety_checker")
    #: The denoiser, as the class calls and wraps it.
    denoiser: ClassVar[type[Denoiser]]
    #: What the denoiser is given beside latent and timestep, and which of its settings says how wide that is.
    widths: ClassVar[Mapping[str, str]] = {"prompt_embedding": "joint_attention_dim"}
    #: The codec.
    codec: ClassVar[type[Codec]] = AutoencoderKLCodec
    #: Tokens of the empty prompt, for plans that are made without encoding it.
    prompt_tokens: ClassVar[int] = 512
    #: Guidance scale that the denoiser is told where the base was distilled with one; None is a family without.
    guidance: ClassVar[float | None] = None

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**options)
        for pipeline in cls.pipelines:
            _FAMILIES[pipeline] = cls

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline

    @property
    def denoiser_part(self) -> str:
        """Name of the denoiser's part."""
        return next(iter(self.classes))

    def parts(self, with_text: bool) -> dict[str, Part]:
        """Return the parts that are needed.

        Args:
            with_text: with those that a prompt is encoded with.
        """
        models = (self.denoiser_part, "vae", "scheduler")
        names = [name for name in self.classes if with_text or name in models]
        return {name: _KINDS.get(name.rstrip("_0123456789"), MODEL) for name in names}

    def check(self, base: Base, configs: Mapping[str, dict[str, Any]]) -> None:  # noqa: B027 - nothing is fine
        """Check what the configs of a base ask for.

        Args:
            base: the base, for messages.
            configs: of denoiser, VAE and scheduler.

        Raises:
            InputError: they ask for what is not done here.
        """

    @abstractmethod
    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return what the denoiser is given for the empty prompt, as its pipeline computes it.

        Args:
            pipeline: the base's pipeline of diffusers with its encoders; its denoiser and its VAE have no weights.

        Returns:
            Tensors (1,...) by the names that ``conditioning_widths`` has for them.
        """

    def conditioning_widths(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return what the denoiser is given beside latent and timestep, and how wide its last axis is.

        Args:
            config: the denoiser's.
        """
        return {name: config[setting] for name, setting in self.widths.items()}

    def denoiser_settings(self, codec: Codec, guidance: float | None) -> dict[str, Any]:
        """Return what the family's denoiser takes beside what every denoiser does; nothing by default.

        Args:
            codec: the codec whose latents it knows.
            guidance: guidance scale that it is told; None is none.
        """
        return {}

    def make_noise_process(self, base: Base) -> NoiseProcess:
        """Return the noise process that the base's scheduler describes.

        Args:
            base: the base, checked.

        Raises:
            InputError: there is no such noise process here.
        """
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        return FlowMatching(load_part(FlowMatchEulerDiscreteScheduler.from_pretrained, base, "scheduler"), self.shift)

    def shift(self, num_tokens: int, num_steps: int, config: Mapping[str, Any]) -> float:
        """Return mu, how far a schedule that is shifted by the image's size moves towards noise: a line by default.

        Args:
            num_tokens: tokens of an image.
            num_steps: steps of sampling.
            config: the scheduler's.
        """
        few, many = config["base_image_seq_len"], config["max_image_seq_len"]
        slope = (config["max_shift"] - config["base_shift"]) / (many - few)
        return num_tokens * slope + (config["base_shift"] - slope * few)


_FAMILIES: dict[str, type[Family]] = {}


def families() -> dict[str, type[Family]]:
    """Return the families by the names of their pipelines."""
    from lightning_modules import networks

    for module in iter_modules(networks.__path__):
        if module.ispkg:
            folder = import_module(f"{networks.__name__}.{module.name}")
            if any(file.name == "family" for file in iter_modules(folder.__path__)):
                import_module(f"{folder.__name__}.family")
    return dict(_FAMILIES)


def family_named(pipeline: object, base: str) -> Family:
    """Return the family of a base.

    Args:
        pipeline: what its ``model_index.json`` says as ``_class_name``.
        base: the base, for the message.

    Raises:
        InputError: there is no such family.
    """
    known = families()
    if not isinstance(pipeline, str) or pipeline not in known:
        from lightning_modules.networks.stock_models import known_networks

        own = sorted(kind.__name__ for kind in known_networks() if kind.__module__.count(".") > _DOTS_IN_NETWORKS)
        raise InputError(
            f"{base} is a {pipeline}, of which no family is known here. Known: {', '.join(sorted(known))}. "
            f"Networks with bases of their own: {', '.join(own)}."
        )
    return known[pipeline](pipeline)


def skeleton(kind: type[nn.Module], base: Base, part: str, config: Mapping[str, Any]) -> nn.Module:
    """Return a model without weights, for those who read its config.

    Args:
        kind: its class.
        base: the base, for the message.
        part: the model's part.
        config: its config.

    Raises:
        InputError: the config describes no model.
    """
    import torch

    try:
        with torch.device("meta"):
            return kind.from_config(dict(config))  # type: ignore[attr-defined]
    except Exception as error:  # whatever diffusers raises on a config that somebody else wrote
        reason = one_line(f"{type(error).__name__}: {error}", 240)
        raise base.refusal(f"{part}/config.json", f"describes no {kind.__name__} ({reason}).") from error
