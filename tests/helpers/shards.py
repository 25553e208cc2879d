"""Shards that must be good from the first sample to the last."""

from collections.abc import Collection, Iterator
from typing import Any

from datamodules.shards.samples import EncodedSample, scan_shard
from geometry.errors import InputError


def iterate_shard(url: str, roles: Collection[str], **options: Any) -> Iterator[EncodedSample]:
    """Yield the samples of a shard as ``scan_shard`` does; raise ``InputError`` at the first bad one."""
    for sample in scan_shard(url, roles, **options):
        if sample.problem:
            raise InputError(sample.problem)
        yield sample
