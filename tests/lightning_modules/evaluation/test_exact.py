import random

import torch

from lightning_modules import Depth, Normals
from lightning_modules.evaluation.exact import ExactSum, merged
from lightning_modules.evaluation.scoring import Scorer, Tally, sample_of
from tests.tiny import make_batch


def tallies(task, order, num_ranks):
    """Score the samples in an order, dealt out to ranks."""
    batch = make_batch(7, 16, 24)
    batch.targets["depth"].values *= (
        10.0 ** torch.arange(-3, 4)[:, None, None, None]
    )  # sums of such sizes round differently
    ranks = [Tally() for _ in range(num_ranks)]
    for position, index in enumerate(order):
        sample = sample_of(batch, index)
        noisy = sample["depth"] + sample.image[:, :1] if isinstance(task, Depth) else sample.image
        Scorer(task).score(ranks[position % num_ranks], noisy, sample)
    return ranks


def test_neither_order_nor_number_of_ranks_changes_a_single_bit():
    for task in (Depth(), Normals()):
        expected = None
        for seed in range(6):
            order = random.Random(seed).sample(range(7), 7)
            ranks = tallies(task, order, 1 + seed % 3)
            scores = Scorer(task).overall(Tally(merged(rank.total for rank in ranks)))
            expected = expected or scores
            assert scores == expected


def test_the_sum_over_samples_is_that_of_one_metric_that_saw_them_all():
    batch = make_batch(5, 16, 24)
    for task in (Depth(), Normals()):
        metric, total = task.make_metrics(DatasetInfo("tiny"))[0], ExactSum()
        prediction = batch.targets["depth"].values + batch.image[:, :1] if isinstance(task, Depth) else batch.image
        task.update_metrics([metric], prediction, batch)
        for index in range(5):
            single = task.make_metrics(DatasetInfo("tiny"))[0]
            task.update_metrics([single], prediction[index : index + 1], sample_of(batch, index))
            total.add(single)
        whole, summed = metric.compute(), total.fill(task.make_metrics(DatasetInfo("tiny"))[0]).compute()
        assert whole.keys() == summed.keys()
        assert all(torch.isclose(whole[name], summed[name], rtol=1e-12, atol=0) for name in whole)
