"""Reads the samples of a data set in a given order, forward through its shards and without decoding them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from datamodules.shards.cache import cached_shard
from datamodules.shards.manifest import Dataset, ShardInfo
from datamodules.shards.samples import DamagedShardError, EncodedSample, scan_shard
from datamodules.shards.transfer import is_remote
from datamodules.streaming.epoch_order import EpochOrder, Run
from datamodules.streaming.stream_order import StreamOrder


class ShardReader:
    """Returns single samples of shards by their index, best in rising order.

    Args:
        dataset: the data set.
        roles: entries to read: "image", "depth", "normals".
    """

    def __init__(self, dataset: Dataset, roles: Collection[str]) -> None:
        self._dataset, self._roles = dataset, roles
        self._visit: object = None
        self._samples: Iterator[EncodedSample] = iter(())
        self._next = 0
        self._damage = ""

    def read(self, visit: object, shard: ShardInfo, index: int) -> EncodedSample:
        """Return one sample of a shard.

        Args:
            visit: something that tells this passage through the shard from others; a new one opens the shard again.
            shard: the shard.
            index: number of the sample in the shard.

        Returns:
            The sample, undecoded; with a problem where it is bad, or lies where the shard is damaged, or is the last
            one of a shard that holds more samples than ``dataset.json`` says.

        Raises:
            InputError: the shard cannot be opened, or reading it fails in a way that trying again might mend.
        """
        url = self._dataset.shard_url(shard)
        if visit != self._visit or index < self._next:
            self._samples = self._open(url, shard, index)
            self._visit, self._next, self._damage = visit, index, ""
        sample = None
        while self._next <= index:
            sample = self._advance(url, shard)
        # Each sample that is lost is named and counted by itself, as if it alone were bad.
        lost = f"sample number {index + 1} of {shard.samples} is lost: {self._damage}"
        return sample or EncodedSample(f"number {index}", url, {}, lost)

    def _advance(self, url: str, shard: ShardInfo) -> EncodedSample | None:
        """Return the next sample, None from where the shard is damaged."""
        sample = None
        try:
            sample = None if self._damage else next(self._samples, None)
            if sample is None:
                self._damage = self._damage or _wrong_count(url, f"only {self._next}", shard)
            self._next += 1
            if self._next == shard.samples and not self._damage and next(self._samples, None) is not None:
                self._damage, sample = _wrong_count(url, "more", shard), None
            return sample
        except DamagedShardError as error:
            self._damage, self._next = str(error), self._next + (sample is None)
            return sample

    def _open(self, url: str, shard: ShardInfo, skip: int) -> Iterator[EncodedSample]:
        """Return the samples from one on, of the copy in the cache where there is a cache."""
        dataset, sha256 = self._dataset, shard.sha256
        if dataset.cache_dir is not None and is_remote(url):
            url = str(cached_shard(dataset, shard, dataset.cache_dir))
        return iter(scan_shard(url, self._roles, skip, dataset.transfer, sha256))


def _wrong_count(url: str, found: str, shard: ShardInfo) -> str:
    return (
        f"shard {url} holds {found} samples, dataset.json lists {shard.samples}. "
        "It is incomplete or was replaced: prepare or copy it again."
    )


@dataclass(frozen=True)
class StreamSample:
    """A sample together with the epoch of its source in which it is read."""

    epoch: int
    sample: EncodedSample


class EpochReader:
    """Reads what one stream of a source is dealt, forward.

    Args:
        dataset: the data set.
        shards: shards of its training split.
        order: sequence of the epochs; in runs that began before version 2, of the stream.
        roles: entries to read: "image", "depth", "normals".
    """

    def __init__(
        self, dataset: Dataset, shards: Sequence[ShardInfo], order: EpochOrder | StreamOrder, roles: Collection[str]
    ) -> None:
        self._shards, self._order = shards, order
        self._reader = ShardReader(dataset, roles)
        self._epoch, self._part = -1, range(0)
        self._shuffled: list[EncodedSample] = []

    def read(self, runs: Sequence[Run]) -> list[StreamSample]:
        """Return the samples of a batch.

        Of a block that is begun, all is read that the stream was dealt of it. Whole shards before it stay unopened.

        Args:
            runs: what the stream is dealt.

        Returns:
            The samples with their epochs.

        Raises:
            InputError: a shard cannot be opened or read.
        """
        samples = []
        for run in runs:
            for position in range(run.start, run.stop):
                if run.epoch != self._epoch or position not in self._part:
                    self._load(run.epoch, position, run.end)
                samples.append(StreamSample(run.epoch, self._shuffled[position - self._part.start]))
        return samples

    def _load(self, epoch: int, position: int, end: int) -> None:
        block = self._order.rest_of_block(position)
        part = range(position, min(block.stop, end))
        stored = self._order.stored(epoch, part)
        samples = {number: self._read(epoch, number) for number in sorted(stored)}
        self._epoch, self._part, self._shuffled = epoch, part, [samples[number] for number in stored]

    def _read(self, epoch: int, stored: int) -> EncodedSample:
        shard, index = self._order.place(epoch, stored)
        return self._reader.read((epoch, shard), self._shards[shard], index)
