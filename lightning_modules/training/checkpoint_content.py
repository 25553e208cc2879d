"""What a checkpoint may hold: plain tensors and plain values, each by name and type; nothing else is taken from one."""

import os
import pickletools
import sys
from collections.abc import Collection
from pathlib import Path
from typing import IO, Annotated, Any, Required, cast
from zipfile import ZIP_STORED, BadZipFile

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from geometry.errors import InputError, one_line, printable
from geometry.files.reading import open_regular_file
from geometry.files.zip_archives import open_zip
from lightning_modules.trained_on import TrainedOnRecord

_MAX_PICKLE_BYTES = 1 << 25
_MAX_VALUES = 2_000_000
_MAX_NESTING = 30
_SHOWN_LETTERS = 200
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
# All that torch.save names for containers of plain tensors and values. PyTorch's own list for weights_only is longer:
# it has callables that take any amount of memory, and tensors of other kinds.
_NAMES = {
    "collections OrderedDict",
    "builtins set",
    "__builtin__ set",
    "_codecs encode",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}
# Opcodes that name classes in other ways than torch.save does.
_FOREIGN_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}


def plain_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor if it is what its size says: dense numbers that are all in memory, each in one place."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError("is a tensor of another kind")
    if tensor.device.type == "meta" or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise ValueError(f"claims {tuple(tensor.shape)} numbers, which are not in the file")
    return tensor


def _weight(tensor: Tensor) -> Tensor:
    if plain_tensor(tensor).dtype not in _DTYPES:
        raise ValueError(f"is of type {tensor.dtype}, which no weight has")
    return tensor


def _filled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if not weights:
        raise ValueError("holds no weights")
    return weights


def _name(text: str) -> str:
    if not text.isprintable():
        raise ValueError("is no name of a weight")
    return text


def plain(value: Any) -> Any:  # noqa: ANN401 - values of many types
    """Return a value if it consists of tensors, numbers, texts and containers of these, and is not endless."""
    left = [(value, 0)]
    num_values = 0
    while left:
        item, level = left.pop()
        num_values += 1
        if level > _MAX_NESTING or num_values > _MAX_VALUES:
            raise ValueError("holds too many values")
        if isinstance(item, Tensor):
            plain_tensor(item)
        elif isinstance(item, dict):
            left += [(part, level + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set):
            left += [(part, level + 1) for part in item]
        elif not (item is None or isinstance(item, bool | int | float | str | bytes)):
            raise ValueError(f"holds a {type(item).__name__}")
    return value


def _files_of_its_folder(state: dict[str, Any]) -> dict[str, Any]:
    """Check that the files that a run may rename and remove are its own checkpoints."""
    folder = (state["dirpath"] or "").rstrip("/")
    names = [*state.get("named", []), *state.get("newest", []), *state["best_k_models"], state["kth_best_model_path"]]
    for name in filter(None, names):
        if os.path.dirname(name).rstrip("/") != folder or not name.endswith(".ckpt"):
            raise ValueError(f"names {name}, which is no checkpoint in its folder {folder}")
    return state


_Plain = Annotated[Any, AfterValidator(plain)]
_Count = Annotated[int, Field(ge=0, lt=1 << 62)]
_Name = Annotated[str, Field(max_length=500), AfterValidator(_name)]
_Weights = Annotated[dict[_Name, Annotated[Tensor, AfterValidator(_weight)]], AfterValidator(_filled)]
_OPEN = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


@with_config(_OPEN)
class _CheckpointsState(TypedDict, total=False):
    dirpath: Required[str | None]
    monitor: str | None
    best_model_path: Required[str]
    best_k_models: Required[dict[str, Tensor]]
    kth_best_model_path: Required[str]
    last_model_path: Required[str]
    newest: list[str]
    named: list[str]
    owes_validation: bool
    owed_metrics: tuple[int, dict[str, int | float]] | None


@with_config(_OPEN)
class _EmaState(TypedDict, total=False):
    num_updates: Required[_Count]


@with_config(_OPEN)
class _CallbackStates(TypedDict, total=False):
    Checkpoints: Annotated[_CheckpointsState, AfterValidator(_files_of_its_folder)]
    ExponentialMovingAverage: _EmaState


@with_config(_OPEN)
class _OptimizerState(TypedDict):
    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


# The one list of what a checkpoint may hold. Of other names in a file, nothing is taken.
_Content = TypedDict(
    "_Content",
    {
        "state_dict": Required[_Weights],
        "ema_state_dict": _Weights,
        "epoch": _Count,
        "global_step": _Count,
        "pytorch-lightning_version": Annotated[str, Field(pattern=r"^\d+(\.\w+){1,5}$", max_length=40)],
        "settings": dict[_Name, str | int | float | bool | None],
        "trained_on": TrainedOnRecord,
        "means": list[dict[str, tuple[float, float]]],
        "loops": Annotated[dict[str, dict[str, Any]], AfterValidator(plain)],
        "callbacks": Annotated[_CallbackStates, AfterValidator(plain)],
        "optimizer_states": Annotated[list[_OptimizerState], AfterValidator(plain)],
        "lr_schedulers": Annotated[list[dict[str, Any]], AfterValidator(plain)],
        "MixedPrecision": dict[str, _Plain],
    },
    total=False,
)
_CONTENT: TypeAdapter[Any] = TypeAdapter(
    with_config(ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True))(_Content)
)


def read_checkpoint(file: str | os.PathLike[str], states_of: Collection[str] = ()) -> dict[str, Any]:
    """Return what a checkpoint holds under the names that are known, without ever running code from it.

    Args:
        file: the checkpoint, in a folder or behind a URL.
        states_of: further names that are known: those of objects that keep a state of plain values.

    Returns:
        Tensors on the CPU and plain values.

    Raises:
        InputError: the file is no checkpoint, or holds something of another kind than it should.
    """
    content = _decoded(file)
    known = _known(content, file, states_of)
    for weights in (known["state_dict"], known.get("ema_state_dict", {})):
        broken = sorted(name for name, weight in weights.items() if not bool(weight.isfinite().all()))
        if broken:
            raise InputError(f"{file} holds weights that are not finite ({broken[0]} ...): its training went wrong.")
    others = sorted(str(name) for name in content.keys() - known.keys())
    if others:
        rank_zero_warn(f"{file} also holds {_shown(', '.join(others))}, which is not used.")
    return known


def peek_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a checkpoint holds, checked, but without reading the numbers of its weights.

    Args:
        file: the checkpoint, in a folder.

    Raises:
        InputError: the file is no checkpoint, or holds something of another kind than it should.
    """
    return _known(_decoded(file, mmap=True), file)


def _decoded(file: str | os.PathLike[str], mmap: bool = False) -> dict[str, Any]:
    try:
        with _opened(file) as stream:
            _check_archive(stream)
            stream.seek(0)
            source: Any = os.fspath(file) if mmap else stream
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint {file}.") from error
    except InputError as error:
        raise InputError(f"{file} cannot be read as a checkpoint: {error} Use another one.") from error
    except Exception as error:  # whatever a decoder raises on bytes from elsewhere
        raise InputError(f"{file} cannot be read as a checkpoint: {_reason(error)}. Use another one.") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(f"{file} is no checkpoint of this project: it has no state_dict.")
    return content


def _opened(file: str | os.PathLike[str]) -> IO[bytes]:
    if "://" in str(file):
        return cast(IO[bytes], get_filesystem(str(file)).open(str(file), "rb"))
    if Path(file).exists() and not Path(file).is_file():
        raise InputError("it is no file.")
    return open_regular_file(Path(file), sys.maxsize)


def _check_archive(stream: IO[bytes]) -> None:
    """Check sizes, and the names of what the file would make, before anything is made.

    Raises:
        InputError: the file is larger unpacked than packed, or names something else than plain tensors and values.
    """
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        raise InputError("it is empty.")
    try:
        with open_zip(stream) as archive:
            members = archive.infolist()
            pickles = [member for member in members if member.filename.endswith("data.pkl")]
            is_stored = all(member.compress_type == ZIP_STORED for member in members)
            if not is_stored or sum(member.file_size for member in members) > size:
                raise InputError("it claims to hold more than its size.")
            if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise InputError("it is none.")
            content = archive.read(pickles[0])
    except BadZipFile as error:
        raise InputError("it is none, or cut off.") from error
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in _FOREIGN_OPCODES or (opcode.name == "GLOBAL" and argument not in _NAMES):
            name = _shown(str(argument or opcode.name).replace(" ", "."))
            raise InputError(f"it holds more than plain tensors and values ({name}), which is never loaded.")
        if number > 5 * _MAX_VALUES:
            raise InputError("it holds too many values.")


def _known(content: dict[str, Any], file: object, states_of: Collection[str] = ()) -> dict[str, Any]:
    try:
        known = cast(dict[str, Any], _CONTENT.validate_python(content))
        return known | {name: plain(content[name]) for name in states_of if name in content}
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = _shown("/".join(map(str, problem["loc"])))
        told = _shown(problem["msg"].removeprefix("Value error, "))
        raise InputError(f"the checkpoint {file} cannot be used: {place}: {told}. Use another one.") from error
    except ValueError as error:
        raise InputError(f"the checkpoint {file} cannot be used: {_shown(str(error))}. Use another one.") from error


def _reason(error: Exception) -> str:
    """Return why a file could not be decoded; PyTorch's advice to load it unsafely is not passed on."""
    first = next(iter(str(error).splitlines()), "")
    is_advice = "weights_only" in first.lower() or "weights only" in first.lower() or "weights-only" in first.lower()
    if not first or is_advice:
        return "it is damaged, or holds more than plain tensors and values"
    return _shown(first).rstrip(".")


def _shown(text: str) -> str:
    """Return a text from a file as one short line without control characters, for a message."""
    return printable(one_line(text, _SHOWN_LETTERS))
