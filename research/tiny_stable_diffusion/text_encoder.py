"""The text encoder: small, random and never trained, because every use of the model is with the empty prompt."""

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_HIDDEN_SIZE = 32


def save_text_encoder(out: Path) -> Tensor:
    """Save text encoder and byte-level tokenizer in a diffusers folder; return the empty prompt, (1,2,hidden)."""
    folder = out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77, pad_token="!"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=_HIDDEN_SIZE,
        intermediate_size=2 * _HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    text_encoder = CLIPTextModel(config).eval()
    text_encoder.save_pretrained(out / "text_encoder")
    with torch.no_grad():
        return text_encoder(torch.tensor(tokenizer("")["input_ids"])[None]).last_hidden_state
