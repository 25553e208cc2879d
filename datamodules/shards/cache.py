"""Copies of remote shards on this machine, each complete and verified before it gets its name.

fsspec's ``simplecache`` is no such thing: after a connection that broke off it takes the half of a file for the whole.
"""

import hashlib
import os
from pathlib import Path

from filelock import FileLock

from datamodules.shards.manifest import Dataset, ShardInfo
from datamodules.shards.transfer import CHUNK_BYTES, open_url
from geometry.errors import InputError

_ATTEMPTS = 2


def cached_shard(dataset: Dataset, shard: ShardInfo, cache_dir: str) -> Path:
    """Return the copy of a shard, after fetching it if there is none.

    A copy is named after the data set's address and the shard's sha256, so two data sets, or two versions of one, never
    share a file. Processes that want the same shard at the same time wait for the first of them.

    Args:
        dataset: the data set the shard belongs to.
        shard: the shard.
        cache_dir: folder of the copies; made if it is missing.

    Returns:
        Path of a file whose sha256 was the one in ``dataset.json``.

    Raises:
        InputError: the shard cannot be fetched, is not what ``dataset.json`` says, or the folder cannot be written.
    """
    address = hashlib.sha256(dataset.root.encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{dataset.manifest.name}-{address}"
    target = folder / f"{Path(shard.file).stem}-{shard.sha256}.tar"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.exists():
                _fetch(dataset, shard, target)
    except OSError as error:
        raise InputError(f"the cache {cache_dir} cannot be used ({error}). Choose another data.cache_dir.") from error
    return target


def _fetch(dataset: Dataset, shard: ShardInfo, target: Path) -> None:
    """Copy a shard under a temporary name, verify it, rename it. A wrong copy is fetched once more."""
    url, temporary = dataset.shard_url(shard), target.with_suffix(".part")
    try:
        for _ in range(_ATTEMPTS):
            checksum, num_bytes = _copy(dataset, url, temporary, dataset.max_shard_bytes(shard))
            if checksum == shard.sha256:
                os.replace(temporary, target)
                return
    finally:
        temporary.unlink(missing_ok=True)
    raise InputError(
        f"shard {url} is short or was changed: {num_bytes} bytes came, their sha256 is {checksum}, dataset.json says "
        f"{shard.sha256}. Prepare or copy it again; if the whole data set was replaced, start anew."
    )


def _copy(dataset: Dataset, url: str, temporary: Path, max_bytes: int) -> tuple[str, int]:
    """Return sha256 and length of what was written."""
    checksum, num_bytes = hashlib.sha256(), 0
    with open(temporary, "wb") as copy:
        try:
            with open_url(url, dataset.transfer) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    checksum.update(chunk)
                    num_bytes += len(chunk)
                    if num_bytes > max_bytes:
                        raise InputError(f"shard {url} has more than {max_bytes} bytes, which no such shard can have.")
                    _write(copy.fileno(), chunk)
        except OSError as error:
            raise InputError(
                f"shard {url} cannot be fetched: {error}. Try again later, or prepare it again."
            ) from error
        os.fsync(copy.fileno())
    return checksum.hexdigest(), num_bytes


def _write(file: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    except OSError as error:
        raise InputError(f"the cache is full or cannot be written ({error.strerror}). Make room.") from error
