"""The files of a base model on this machine, and whether they can be read at all."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geometry.errors import InputError, one_line
from geometry.files.json_text import parse_json
from geometry.files.limits import MAX_TEXT_BYTES
from geometry.files.reading import read_regular_file
from lightning_modules.networks.weightless import is_weightless
from lightning_modules.shipped import find_folder

INDEX = "model_index.json"
_DTYPES = ("F64", "F32", "F16", "BF16")
# Integers that old text encoders and batch norms keep beside their weights.
_INTEGERS = ("position_ids", "num_batches_tracked")


@dataclass(frozen=True)
class Part:
    """A part of a base: a folder with a config and, where the part has any, weights.

    Attributes:
        config: name of the config's file.
        stem: what the names of the weights' files begin with; None where there are no weights.
    """

    config: str
    stem: str | None = None


MODEL = Part("config.json", "diffusion_pytorch_model")
TEXT_ENCODER = Part("config.json", "model")
TOKENIZER = Part("tokenizer_config.json")
PROCESSOR = Part("preprocessor_config.json")
SCHEDULER = Part("scheduler_config.json")


@dataclass(frozen=True)
class Weights:
    """The files that hold one part's weights.

    Attributes:
        variant: what is between the stem and the ending of their names, such as fp16, or None.
        files: paths within the base.
    """

    variant: str | None
    files: tuple[str, ...]


@dataclass(frozen=True)
class Base:
    """A base model and its files.

    Attributes:
        name: folder or hub id, as it was given.
        folder: where its files lie on this machine.
        parts: what is needed of it, by the names of the folders.
        remote: paths of the files that the hub has and this machine may not have yet.
        note: why the hub's files are not complete, for messages.
    """

    name: str
    folder: Path
    parts: Mapping[str, Part]
    remote: frozenset[str] = frozenset()
    note: str = ""

    def __str__(self) -> str:
        if find_folder(self.name):
            return f"the base folder {self.name}"
        return f"the hub's model {self.name} (its files are in {self.folder}{'; ' * bool(self.note)}{self.note})"

    def refusal(self, file: str, reason: str) -> InputError:
        """Return the error that says in one line why a base cannot be used.

        Args:
            file: path within the base, or a part.
            reason: what is wrong with it, and what would be needed.
        """
        return InputError(f"{self} cannot be used: {file} {reason}")

    def read_json(self, file: str) -> dict[str, Any]:
        """Return the object in a JSON file.

        Args:
            file: path within the base.

        Raises:
            InputError: it cannot be read, or holds no JSON object.
        """
        try:
            content = parse_json(read_regular_file(self.folder / file, MAX_TEXT_BYTES), MAX_TEXT_BYTES)
        except OSError as error:
            raise self.refusal(file, f"cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise self.refusal(file, f"is no JSON ({error}). The base is damaged; fetch it again.") from error
        if not isinstance(content, dict):
            raise self.refusal(file, "holds no JSON object. The base is damaged; fetch it again.")
        return content

    def weights(self, part: str) -> Weights:
        """Return the files of a part's weights: the plain ones, or those of a variant where there are no others.

        Args:
            part: name of a part that has weights.

        Raises:
            InputError: there are none in safetensors, or of several variants and none plain.
        """
        stem = self.parts[part].stem
        heads: dict[str | None, str] = {}
        for name in sorted(self._names(part)):
            single = re.fullmatch(rf"{stem}(?:\.([\w-]+))?\.safetensors", name)
            sharded = re.fullmatch(rf"{stem}\.safetensors\.index(?:\.([\w-]+))?\.json", name)
            if found := single or sharded:
                if single and re.search(r"-\d{5}-of-\d{5}$", found[1] or ""):
                    continue  # a shard of a variant; its index names it
                heads.setdefault(found[1], name)
        usual: tuple[str | None, ...] = (None, "fp16", "bf16")
        variants = [variant for variant in usual if variant in heads] or list(heads)
        if not variants:
            raise self._no_weights(part)
        if len(variants) > 1 and variants[0] not in usual:
            raise self.refusal(part, f"has weights of several variants, {', '.join(map(str, variants))}: keep one.")
        head = heads[variants[0]]
        shards = self._shards(f"{part}/{head}") if head.endswith(".json") else (head,)
        return Weights(variants[0], tuple(f"{part}/{name}" for name in shards))

    def all_weights(self) -> list[str]:
        """Return the files of all weights, as paths within the base.

        Raises:
            InputError: a part has none in safetensors.
        """
        return [file for name, part in self.parts.items() if part.stem for file in self.weights(name).files]

    def stored_dtype(self, part: str) -> torch.dtype:
        """Return the precision that a part's weights are stored in, the finest where there are several.

        Args:
            part: name of a part that has weights.
        """
        from safetensors import safe_open

        kinds = set()
        for file in self.weights(part).files:
            with safe_open(self.folder / file, "pt") as content:
                kinds |= {content.get_slice(name).get_dtype() for name in content.keys()}
        if kinds <= {"BF16"}:
            return torch.bfloat16
        return torch.float16 if kinds <= {"F16"} else torch.float32

    def _names(self, part: str) -> set[str]:
        """Return the names of a part's files, here or on the hub."""
        here = {path.name for path in (self.folder / part).glob("*")}
        return here | {name.removeprefix(f"{part}/") for name in self.remote if name.startswith(f"{part}/")}

    def _shards(self, index: str) -> tuple[str, ...]:
        places = self.read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
            raise self.refusal(index, "has no weight_map from tensors to files. The base is damaged; fetch it again.")
        names = tuple(sorted(set(places.values())))
        if strange := [name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)]:
            raise self.refusal(index, f"names {strange[0]!r}, which is no safetensors file beside it.")
        return names

    def _no_weights(self, part: str) -> InputError:
        stem = self.parts[part].stem
        if any(name.endswith((".bin", ".ckpt", ".pt", ".pth", ".pkl")) for name in self._names(part)):
            return InputError(
                f"{part} of {self} holds pickled weights (.bin) alone, which are never read: they could run code. "
                "Convert them to safetensors, or download the base's safetensors."
            )
        return InputError(f"cannot read {part} of {self}: there is no {part}/{stem}.safetensors.")


def check_weights(base: Base) -> None:
    """Check that the weights of a base are whole files of plain numbers.

    Convention:
        Only the headers of the files are read.

    Args:
        base: a base whose files are on this machine.

    Raises:
        InputError: weights are missing, damaged or quantised.
    """
    for file in () if is_weightless() else base.all_weights():
        _check_header(base, file)


def _check_header(base: Base, file: str) -> None:
    """Check that a file is a whole safetensors file of plain floating-point numbers."""
    from safetensors import SafetensorError, safe_open

    path, part = base.folder / file, file.split("/")[0]
    if not path.is_file():
        raise InputError(f"cannot read {part} of {base}: it has {absence(base, file)}.")
    try:
        with safe_open(path, "pt") as content:
            kinds = {name: content.get_slice(name).get_dtype() for name in content.keys()}
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        reason = one_line(error)
        raise InputError(
            f"cannot read {part} of {base}: {file} is damaged or no safetensors file ({reason}). Fetch it again."
        ) from error
    if not kinds:
        raise base.refusal(file, "holds no tensors. The base is damaged; fetch it again.")
    for name, kind in kinds.items():
        if kind not in _DTYPES and not name.endswith(_INTEGERS):
            raise base.refusal(
                file,
                f"holds {name} as {kind}: quantised weights are not read. Needed: weights in float32, float16 or "
                "bfloat16.",
            )


def missing_configs(base: Base) -> list[str]:
    """Return the small files that a base lacks, as paths within it.

    Args:
        base: a base.
    """
    names = [f"{name}/{part.config}" for name, part in base.parts.items()]
    missing = [name for name in names if not (base.folder / name).is_file()]
    for name, part in base.parts.items():
        if part == TOKENIZER and f"{name}/{part.config}" not in missing:
            missing += [file for file in _vocabulary(base.folder, name) if not (base.folder / file).is_file()]
    return missing


def _vocabulary(folder: Path, part: str) -> Iterator[str]:
    """Yield the files that hold a tokenizer's words: one of the new kind, one of sentencepiece, or two of the old."""
    old = (f"{part}/vocab.json", f"{part}/merges.txt")
    if any((folder / name).exists() for name in old):
        yield from old
    else:
        pieces = f"{part}/spiece.model"
        yield pieces if (folder / pieces).exists() else f"{part}/tokenizer.json"


def absence(base: Base, file: str) -> str:
    """Say that a file is not there, or is something else.

    Args:
        base: a base.
        file: path within it.
    """
    path = base.folder / file
    if path.is_dir():
        return f"a folder in place of the file {file}"
    if path.is_symlink():
        return f"a link to nothing in place of the file {file}"
    return f"something else in place of the file {file}" if path.exists() else f"no {file}"
