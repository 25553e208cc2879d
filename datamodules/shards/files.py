"""Shards: tar files in the layout of webdataset that hold the entries of many samples, one sample after another.

Convention:
    The entries of a sample follow each other and are named ``<key>.<entry>``, for instance
    ``ai_001_001-cam_00-0000.json``.
    A key holds no dot and no slash. Equal samples make equal bytes: no times, owners or modes are recorded.
"""

import hashlib
import io
import logging
import os
import re
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from datamodules.shards.codecs import CODE_TYPE, DECODERS, check_claim, decode_codes, entry_roles
from datamodules.shards.manifest import ShardInfo
from datamodules.shards.samples import EncodedSample as EncodedSample
from datamodules.shards.samples import scan_shard as scan_shard
from datamodules.untrusted.text import shorten
from geometry.errors import InputError
from geometry.files.limits import MAX_ARRAY_BYTES
from geometry.modalities import modality_named

_log = logging.getLogger(__name__)


def write_shard(folder: Path, file: str, samples: Iterable[EncodedSample]) -> ShardInfo:
    """Write a shard, under a temporary name until it is complete.

    Args:
        folder: folder of the data set.
        file: path of the shard in that folder; missing folders are made.
        samples: what to write, in order.

    Returns:
        The shard's line in ``dataset.json``. If there is no sample, no file is written, and it says 0 samples.

    Raises:
        InputError: a key holds a dot or a slash, or comes twice.
        OSError: the file cannot be written; what was written of it is removed.
    """
    target = folder / file
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            samples_written = _write_tar(stream, samples)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if samples_written == 0:
        temporary.unlink()
        return ShardInfo(file, 0, "")
    checksum = file_sha256(temporary)
    os.replace(temporary, target)
    return ShardInfo(file, samples_written, checksum)


def _write_tar(stream: BinaryIO, samples: Iterable[EncodedSample]) -> int:
    keys: set[str] = set()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            _check_key(sample.key, keys)
            keys.add(sample.key)
            for name, data in sample.entries.items():
                member = tarfile.TarInfo(f"{sample.key}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            tar.members.clear()  # type: ignore[attr-defined]
    return len(keys)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def decode_sample(
    sample: EncodedSample, roles: Collection[str], max_bytes: int = MAX_ARRAY_BYTES, keep_codes: bool = False
) -> dict[str, Any]:
    """Return the decoded entries of a sample.

    Args:
        sample: the sample, with at least these entries.
        roles: which entries to decode: "image", "info" and names of modalities.
        max_bytes: refuse entries that claim to be larger when decoded, before memory is reserved for them.
        keep_codes: leave the values of a modality that are coded as they are.

    Returns:
        By role: image (H,W,3) uint8 RGB; a modality (C,H,W), or (H,W) for a single channel, float (float16 if it was
        coded), or its codes (K,H,W) int16; info as a dictionary.

    Raises:
        InputError: an entry cannot be decoded; the message names shard and sample.
    """
    decoded, known = {}, entry_roles()
    for name, data in sample.entries.items():
        role, format_name = known[name]
        if role in roles:
            where = f"{sample.shard}: sample {sample.key!r}, entry {name!r}"
            try:
                check_claim(data, format_name, max_bytes)
                value = DECODERS.get(format_name, decode_codes)(data)
                decoded[role] = value if keep_codes else without_codes(role, value)
            except InputError as error:
                raise InputError(f"{where}: {error}.") from error
            except Exception as error:
                # Whatever a decoder makes of arbitrary bytes is no reason to lose a run; the log keeps where it was.
                _log.info("%s cannot be decoded", where, exc_info=True)
                raise InputError(f"{where} cannot be decoded ({type(error).__name__}: {shorten(error)}).") from error
    return decoded


def without_codes(role: str, value: Any) -> Any:  # noqa: ANN401
    """Return the values (C,H,W) float16 that codes of a modality stand for; anything else as it is.

    Raises:
        InputError: codes have another shape than those of the modality.
    """
    if not isinstance(value, np.ndarray) or value.dtype != CODE_TYPE:
        return value
    coding = modality_named(role).coding
    if coding is None or value.ndim != 3 or value.shape != coding.stored_shape(*value.shape[1:]):
        raise InputError(f"codes of the shape {value.shape} are none of {role}")
    return coding.decode_image(value)


def _check_key(key: str, keys: set[str]) -> None:
    if not re.fullmatch(r"[^./\\\s]+", key) or len(key) > 80:
        raise InputError(
            f"{key!r} cannot be a sample's key: dots, slashes, spaces and more than 80 letters are refused."
        )
    if key in keys:
        raise InputError(f"two samples have the key {key!r}; every sample of a data set needs its own.")
