"""Checkpoint files that survive: complete or absent, checked before they are used, and never unpickled."""

import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch import __version__ as lightning_version
from lightning.pytorch.plugins.io import TorchCheckpointIO

from geometry.errors import InputError
from geometry.files.zip_archives import open_zip

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
DAMAGED = ".damaged"
# One name for all: what a killed run left unfinished is overwritten by the next write.
_UNFINISHED, _UNFINISHED_NAME = "unfinished.tmp", "unfinished_name.tmp"

_PathLike = str | os.PathLike[str]


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints under a temporary name, brings them to the disk, then renames them.

    A file of the same name is not lost: it becomes ``previous.ckpt``. At every moment a complete file has the name.
    Places that are no paths of this machine (``s3://...``) are left to Lightning.

    Args:
        states_of: names in a checkpoint that are taken beside those that every checkpoint has: of data modules that
            keep a state.
    """

    def __init__(self, states_of: Collection[str] = ()) -> None:
        super().__init__()
        self.states_of = states_of

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PathLike, storage_options: Any = None) -> None:  # noqa: ANN401
        """Write a checkpoint.

        Args:
            checkpoint: what to write.
            path: where to.
            storage_options: not used.

        Raises:
            InputError: the disk is full or the file cannot be written; older checkpoints are as they were.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, str(path), storage_options)
            return
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _written_whole(target) as stream:
                torch.save(checkpoint, stream)  # type: ignore[arg-type]
        except OSError as error:
            raise InputError(
                f"the checkpoint {target} cannot be written ({error.strerror or error}). Older checkpoints are intact: "
                "make room, then continue with --ckpt_path last."
            ) from error

    def load_checkpoint(
        self,
        path: _PathLike,
        map_location: Callable | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return the content of a checkpoint, without ever running code from it.

        Args:
            path: where it is.
            map_location: ignored; tensors come on the CPU.
            weights_only: ignored; only tensors and plain values are ever read.

        Raises:
            InputError: the file is no checkpoint, or holds something of another kind than it should.
        """
        from lightning_modules.training.checkpoint_content import read_checkpoint  # slow to import

        # Lightning's migrations ask for the version; without one there is nothing to migrate.
        return {"pytorch-lightning_version": lightning_version} | read_checkpoint(path, self.states_of)


class _NotedWrites:
    """A file that remembers why a write failed; ``torch.save`` turns that into an error that does not say."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401
        try:
            return self._stream.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _written_whole(target: Path) -> Iterator[_NotedWrites]:
    """Open a temporary file that gets the target's name once it is complete and on the disk.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    temporary = target.with_name(_UNFINISHED)
    try:
        with open(temporary, "wb") as stream:
            noted = _NotedWrites(stream)
            try:
                yield noted
            except RuntimeError as error:
                raise (noted.failure or error) from error
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            _also_name(target, target.with_name(PREVIOUS))
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def also_name(file: Path, name: Path) -> None:
    """Give a complete file a second name, on disks without hard links by copying it.

    Args:
        file: the file.
        name: its other name, which may be another file's so far.

    Raises:
        InputError: the disk is full or cannot be written.
    """
    try:
        _also_name(file, name)
        _sync_folder(name.parent)
    except OSError as error:
        raise InputError(f"{name} cannot be written ({error.strerror or error}). Make room.") from error


def _also_name(file: Path, name: Path) -> None:
    temporary = name.with_name(_UNFINISHED_NAME)
    temporary.unlink(missing_ok=True)
    try:
        os.link(file, temporary)
    except OSError:  # a disk without hard links
        with open(file, "rb") as source, open(temporary, "wb") as copy:
            while chunk := source.read(1 << 22):
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    os.replace(temporary, name)
    temporary.unlink(missing_ok=True)  # it stays where both were names of the same file already


def _sync_folder(folder: Path) -> None:
    """Bring names to the disk, too; without this a power cut can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network disk can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damage(file: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None if it is as it was written.

    All of it is read and compared with the checksums in it; ``torch.load`` does not compare them.

    Args:
        file: path of the checkpoint.
    """
    try:
        with open_zip(Path(file)) as archive:
            broken = archive.testzip()
            if broken is None and not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "it is no checkpoint"
    except zipfile.BadZipFile:
        return "it is cut off, or no checkpoint"
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        return str(error)
    return f"the checksum of {broken} in it is wrong" if broken else None
