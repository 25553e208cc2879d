"""The embedding of the empty prompt, for which the text encoder is needed once."""

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from geometry.errors import check_choice
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.pretrained import load_encoder, load_part
from lightning_modules.networks.weightless import is_weightless

if TYPE_CHECKING:
    from transformers import CLIPTextModel

PromptLength = Literal["short", "max_length"]

_BEGIN_AND_END = 2


def embed_empty_prompt(base: Base, length: PromptLength) -> Tensor:
    """Return the embedding (1,L,D) of the empty prompt; tokenizer and text encoder are dropped afterwards.

    Args:
        base: the base, checked.
        length: tokens of the prompt: see ``StableDiffusion``.

    Raises:
        InputError: there is no such length, or the base's parts do not fit together.
    """
    from transformers import CLIPTokenizer

    check_choice("prompt_length", length, get_args(PromptLength))
    if is_weightless():
        most = base.read_json("tokenizer/tokenizer_config.json")["model_max_length"]
        width = base.read_json("text_encoder/config.json")["hidden_size"]
        return torch.zeros(1, most if length == "max_length" else _BEGIN_AND_END, width)
    tokenizer = load_part(CLIPTokenizer.from_pretrained, base, "tokenizer")
    text_encoder = load_text_encoder(base)
    padding = "max_length" if length == "max_length" else "do_not_pad"
    tokens = tokenizer("", padding=padding, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    ids = tokens.input_ids
    if not ids.numel() or ids.max() >= text_encoder.config.vocab_size:
        raise base.refusal(
            "tokenizer", f"turns the empty prompt into {ids.flatten().tolist()[:4]}, words that text_encoder lacks."
        )
    with torch.no_grad():
        return text_encoder(ids)[0].detach()


def load_text_encoder(base: Base) -> "CLIPTextModel":
    """Return the text encoder of a base in float32.

    Args:
        base: the base, checked.

    Raises:
        InputError: it cannot be read, or its weights do not fit.
    """
    from transformers import CLIPTextModel

    return load_encoder(CLIPTextModel, base, "text_encoder", torch.float32)
