"""Whether a base model is one that this project can use: every way into a base asks here before weights are loaded."""

from typing import Any

from geometry.errors import InputError
from geometry.files.json_text import is_finite_number
from geometry.modalities import registered
from lightning_modules.networks.base_files import (
    INDEX,
    MODEL,
    PROCESSOR,
    SCHEDULER,
    TEXT_ENCODER,
    TOKENIZER,
    Base,
    absence,
    check_weights,
    missing_configs,
)
from lightning_modules.networks.config_checks import (
    check_class,
    check_counts,
    check_per_channel,
    named_class,
    read_configs,
)
from lightning_modules.networks.hub import download_missing, find_base
from lightning_modules.networks.stable_diffusion.image_embedding import ENCODER, PROCESSOR_PART
from lightning_modules.networks.stable_diffusion.label_check import check_labels, check_published_switch, embeds_image
from lightning_modules.networks.task_switch import TaskSwitch

PARTS = {"unet": MODEL, "vae": MODEL, "text_encoder": TEXT_ENCODER, "tokenizer": TOKENIZER, "scheduler": SCHEDULER}
# Those of a base that embeds the image in place of a prompt.
IMAGE_PARTS = {"unet": MODEL, "vae": MODEL, ENCODER: TEXT_ENCODER, PROCESSOR_PART: PROCESSOR, "scheduler": SCHEDULER}
# What a UNet's config may ask for beside latent, timestep and prompt. None of it is there to be given.
_EXTRA_INPUTS = {
    "num_class_embeds": "a class embedding",
    "addition_embed_type": "added embeddings (in SDXL, time ids and a pooled prompt)",
    "encoder_hid_dim": "a projection of prompts or images of another encoder",
    "encoder_hid_dim_type": "a projection of prompts or images of another encoder",
    "time_cond_proj_dim": "a guidance scale beside the timestep (as latent consistency models do)",
    "dual_cross_attention": "two prompts at once",
}
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    ENCODER: ("CLIPVisionModelWithProjection",),
    # The last two are names of what reads tokenizer.json, in transformers 4 and 5.
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
}
_CONSISTENCY = ("LCMScheduler", "TCDScheduler")
# Parts of pipelines that have no influence on what UNet and VAE put out.
_IDLE_PARTS = ("safety_checker", "feature_extractor", "image_processor")
_LONGEST_PROMPT = 1000
_MOST_TIMESTEPS = 100_000
# What the classes take where their configs say nothing.
_UNET_DEFAULTS = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 1280}
_VAE_DEFAULTS = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "scaling_factor": 0.18215}
_MODEL_TYPES = {"text_encoder": "clip_text_model", ENCODER: "clip_vision_model"}
_ENCODER_DEFAULTS = {
    "text_encoder": {"hidden_size": 512, "max_position_embeddings": 77},
    ENCODER: {"projection_dim": 512, "image_size": 224},
}
_LARGEST_IMAGE = 1024


def check_base(name: str, switch: TaskSwitch | None = None) -> Base:
    """Return a base model whose files are on this machine and which this project can use.

    Convention:
        Configs and the headers of the weights are read, no weights. Of a base on the hub, weights are fetched after
        its configs have been found right.

    Args:
        name: folder, or hub id ``owner/name``.
        switch: what the UNet is told; None where it takes no labels.

    Raises:
        InputError: there is no such folder or model, it lacks a part, a file is damaged, or it needs what this
            project does not have.
    """
    parts = IMAGE_PARTS if embeds_image(name, switch) else PARTS
    base = find_base(name, parts)
    _check_index(base, switch)
    if missing := [absence(base, file) for file in missing_configs(base)]:
        raise InputError(
            f"{base} has {' and '.join(missing)}; a base is a folder in the diffusers layout with {', '.join(parts)}."
        )
    configs = read_configs(base)
    vae = _check_vae(base, _VAE_DEFAULTS | configs["vae"])
    if ENCODER in parts:
        image = _check_encoder(base, ENCODER, configs[ENCODER], "vision_config")
        if image["image_size"] > _LARGEST_IMAGE:
            raise base.refusal(
                f"{ENCODER}/config.json", f"has image_size: {image['image_size']}. Needed: at most {_LARGEST_IMAGE}."
            )
        said, width = f"{ENCODER}/config.json says projection_dim", image["projection_dim"]
    else:
        text = _check_encoder(base, "text_encoder", configs["text_encoder"], "text_config")
        _check_tokenizer(base, configs["tokenizer"], text["max_position_embeddings"])
        said, width = "text_encoder/config.json says hidden_size", text["hidden_size"]
    unet = _UNET_DEFAULTS | configs["unet"]
    _check_unet(base, unet, vae["latent_channels"])
    check_labels(base, unet, switch)
    _check_prompt_width(base, unet["cross_attention_dim"], said, width)
    _check_scheduler(base, configs["scheduler"])
    download_missing(base)
    check_weights(base)
    return base


def _check_index(base: Base, switch: TaskSwitch | None) -> None:
    """Check what the whole model says about itself, where it does."""
    if not (base.folder / INDEX).exists():
        return
    index = base.read_json(INDEX)
    if index.get("_class_name") == "StableDiffusionInstructPix2PixPipeline":
        raise base.refusal(INDEX, "is InstructPix2Pix, whose UNet takes the noisy latent first; here it comes second.")
    check_published_switch(base, index, switch)
    for modality in registered().values():
        stock = modality.stock_pipeline
        if stock and stock.class_name == index.get("_class_name") and (difference := stock.differs(index)):
            raise base.refusal(INDEX, difference)
    for part in index:
        given = named_class(index, part)
        if given is None or part.startswith("_"):
            continue
        if part not in base.parts and part not in _IDLE_PARTS:
            raise base.refusal(
                INDEX, f"has a part {part} ({given}), which is not read here. Needed: {', '.join(base.parts)} alone."
            )
        check_class(base, INDEX, f"{part}: ", given, _CLASSES.get(part))


def _check_unet(base: Base, config: dict[str, Any], latent_channels: int) -> None:
    file = "unet/config.json"
    check_class(base, file, "", config.get("_class_name"), _CLASSES["unet"])
    for name, what in _EXTRA_INPUTS.items():
        if config.get(name) not in (None, False):
            raise base.refusal(
                file,
                f"has {name}: {config[name]!r}: this UNet wants {what}, which this project does not have to give. "
                "Needed: a UNet of latent, timestep and prompt alone.",
            )
    if config.get("attention_type", "default") != "default":
        raise base.refusal(
            file,
            f"has attention_type: {config['attention_type']!r}: this UNet wants places of objects. Needed: default.",
        )
    check_counts(base, file, config, "in_channels", "out_channels")
    if config["out_channels"] != latent_channels:
        raise base.refusal(
            file,
            f"has out_channels: {config['out_channels']!r}, but the VAE's latents have {latent_channels} channels. "
            "Needed: as many.",
        )


def _check_prompt_width(base: Base, widths: object, said: str, width: int) -> None:
    if any(each != width for each in (widths if isinstance(widths, list) else [widths])):
        raise base.refusal(
            "unet/config.json",
            f"has cross_attention_dim: {widths!r}, but {said}: {width}. Needed: an encoder whose embeddings are as "
            "wide as the UNet's prompts.",
        )


def _check_vae(base: Base, config: dict[str, Any]) -> dict[str, Any]:
    file = "vae/config.json"
    check_class(base, file, "", config.get("_class_name"), _CLASSES["vae"])
    check_counts(base, file, config, "latent_channels", "in_channels", "out_channels")
    for name in ("in_channels", "out_channels"):
        if config[name] != 3:
            raise base.refusal(file, f"has {name}: {config[name]}. Needed: 3, the channels of an image.")
    for name in ("latents_mean", "latents_std"):
        check_per_channel(base, file, name, config)
    if not is_finite_number(config["scaling_factor"]) or config["scaling_factor"] == 0:
        raise base.refusal(file, f"has scaling_factor: {config['scaling_factor']!r}. Needed: a number, not 0.")
    if config.get("shift_factor") is not None and not is_finite_number(config["shift_factor"]):
        raise base.refusal(file, f"has shift_factor: {config['shift_factor']!r}. Needed: a number, or null.")
    return config


def _check_encoder(base: Base, part: str, config: dict[str, Any], within: str) -> dict[str, Any]:
    """Return an encoder's settings, which are ``within`` its config where that is of the whole CLIP."""
    file, names = f"{part}/config.json", config.get("architectures")
    for name in names if isinstance(names, list) else [names]:
        check_class(base, file, "", name, _CLASSES[part])
    kind = config.get("model_type", _MODEL_TYPES[part])
    if kind not in (_MODEL_TYPES[part], "clip"):
        raise base.refusal(file, f"has model_type: {kind!r}. Needed: {_MODEL_TYPES[part]}, the encoder of CLIP.")
    inner = config.get(within)
    settings = _ENCODER_DEFAULTS[part] | (inner if isinstance(inner, dict) else config)
    check_counts(base, file, settings, *_ENCODER_DEFAULTS[part])
    return settings


def _check_tokenizer(base: Base, config: dict[str, Any], num_positions: int) -> None:
    file = "tokenizer/tokenizer_config.json"
    check_class(base, file, "", config.get("tokenizer_class"), _CLASSES["tokenizer"])
    check_counts(base, file, config, "model_max_length")
    if config["model_max_length"] > min(num_positions, _LONGEST_PROMPT):
        raise base.refusal(
            file,
            f"has model_max_length: {config['model_max_length']}, but the text encoder has {num_positions} positions. "
            "Needed: at most as many.",
        )


def _check_scheduler(base: Base, config: dict[str, Any]) -> None:
    file, name = "scheduler/scheduler_config.json", config.get("_class_name")
    if name in _CONSISTENCY:
        raise base.refusal(
            file,
            f"names the class {name}: a consistency model, which wants gaussian noise and that scheduler's own steps. "
            "Needed: a diffusion model, for instance the one that it was made from.",
        )
    check_counts(base, file, {"num_train_timesteps": 1000} | config, "num_train_timesteps")
    if config.get("num_train_timesteps", 0) > _MOST_TIMESTEPS:
        raise base.refusal(file, f"has num_train_timesteps: {config['num_train_timesteps']}. Needed: 1000 or so.")
    if config.get("use_flow_sigmas"):
        raise base.refusal(file, "has use_flow_sigmas: true: a model of flow matching. Needed: a diffusion model.")
