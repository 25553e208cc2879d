"""What every order of training rests on: hashes, the data set of every micro-step, and counts.

Words:
    A micro-step is one batch on every rank. All ranks read from the same source (data set) in the same micro-step.
    A source is read through a fixed number of virtual streams: rank r of micro-step g takes its batch from stream
    ``(g * world_size + r) mod num_streams``, so that each stream is read by few loader processes.
    What a stream holds says ``epoch_order``; in runs that began with an earlier version ``stream_order``.

Nothing here depends on the number of loader processes, and nothing needs to be read to know where a sample lies.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STREAM_COUNTS = (1, 2, 4, 6, 12, 24, 48)
STEPS_PER_CHUNK = 4096

IntArray = np.ndarray


def stable_hash(*parts: object) -> int:
    """Return 64 bits that depend on the text of all parts, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def hash_sequence(seed: int, start: int, stop: int) -> IntArray:
    """Return 64 random bits for each of the numbers ``start .. stop - 1``, as uint64.

    Source:
        The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied to a counter.
    """
    mixed = (np.arange(start, stop, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64(stable_hash(seed))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def sources_of_steps(seed: int, weights: Sequence[float], start: int, stop: int) -> IntArray:
    """Return the index of the source of every micro-step from ``start`` to ``stop - 1``.

    Args:
        seed: seed of the training order.
        weights: how often each source is drawn, relative to the others; positive.
        start: first micro-step.
        stop: one past the last micro-step.

    Returns:
        (stop - start,) int64. Over many steps, the shares are those of the weights.
    """
    uniform = (hash_sequence(stable_hash(seed, "source"), start, stop) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    boundaries = np.cumsum(np.asarray(weights, np.float64)) / np.sum(weights)
    return np.minimum(np.searchsorted(boundaries, uniform, side="right"), len(weights) - 1)


def count_streams(shard_counts: Sequence[int], max_streams: int) -> int:
    """Return the number of virtual streams: the largest of 1, 2, 4, 6, 12, 24, 48 that every source can fill.

    Args:
        shard_counts: number of shards of every source, at least 1.
        max_streams: upper bound.

    Returns:
        A number that many products of ranks and workers divide.
    """
    limit = min(*shard_counts, max_streams)
    return max(count for count in STREAM_COUNTS if count <= max(limit, 1))


@dataclass(frozen=True)
class Segment:
    """A part of the training during which batches were made in the same way.

    Attributes:
        micro_steps: number of micro-steps.
        world_size: number of ranks.
        batch_size: samples per rank and micro-step.
    """

    micro_steps: int
    world_size: int
    batch_size: int


def drawn_steps(
    seed: int, weights: Sequence[float], source: int, start: int, count: int, stop: int | None = None
) -> IntArray:
    """Return the next micro-steps that draw a source.

    Args:
        seed: seed of the training order.
        weights: weights of the sources.
        source: index of the source.
        start: first micro-step to look at.
        count: how many to return at most.
        stop: one past the last micro-step to look at; None looks until there are enough.

    Returns:
        (count,) int64 in rising order; fewer only if ``stop`` came first.
    """
    found, total = [np.zeros(0, np.int64)], 0
    while total < count and (stop is None or start < stop):
        end = start + STEPS_PER_CHUNK if stop is None else min(start + STEPS_PER_CHUNK, stop)
        found.append(start + np.flatnonzero(sources_of_steps(seed, weights, start, end) == source))
        total, start = total + len(found[-1]), end
    return np.concatenate(found)[:count]


def even_subset(total: int, count: int | None) -> list[int]:
    """Return ``count`` of the numbers ``0 .. total - 1`` at even distances, all of them if there are fewer."""
    if count is None or count >= total:
        return list(range(total))
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]
