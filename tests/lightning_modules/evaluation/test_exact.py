import random

import torch

from geometry.batch import DatasetInfo
from lightning_modules import Depth, Normals
from lightning_modules.evaluation.exact import ExactSum, merged
from lightning_modules.evaluation.scoring import Scorer, Tally
from tests.helpers.tiny import make_batch

TINY = DatasetInfo("tiny")


def tallies(task, order, num_ranks):
    """Score the samples in an order, dealt out to ranks."""
    batch = make_batch(7, 16, 24)
    # Sums of such sizes round differently.
    batch.targets["depth"].values.mul_(10.0 ** torch.arange(-3, 4)[:, None, None, None])
    ranks = [Tally() for _ in range(num_ranks)]
    for position, index in enumerate(order):
        sample = batch[index : index + 1]
        noisy = sample.targets["depth"].values + sample.image[:, :1] if isinstance(task, Depth) else sample.image
        Scorer(task, TINY).score(ranks[position % num_ranks], noisy, sample)
    return ranks


def test_neither_order_nor_number_of_ranks_changes_a_single_bit():
    for task in (Depth(), Normals()):
        expected = None
        for seed in range(6):
            order = random.Random(seed).sample(range(7), 7)
            ranks = tallies(task, order, 1 + seed % 3)
            scores = Scorer(task, TINY).overall(Tally({0: merged(rank.totals[0] for rank in ranks)}))
            expected = expected or scores
            assert scores == expected


def test_the_sum_over_samples_is_that_of_one_metric_that_saw_them_all():
    batch = make_batch(5, 16, 24)
    for task in (Depth(), Normals()):
        metric, total = task.make_metrics(TINY)[0], ExactSum()
        prediction = batch.targets["depth"].values + batch.image[:, :1] if isinstance(task, Depth) else batch.image
        task.update_metrics([metric], prediction, batch)
        for index in range(5):
            single = task.make_metrics(TINY)[0]
            task.update_metrics([single], prediction[index : index + 1], batch[index : index + 1])
            total.add(single)
        whole, summed = metric.compute(), total.fill(task.make_metrics(TINY)[0]).compute()
        assert whole.keys() == summed.keys()
        assert all(torch.isclose(whole[name], summed[name], rtol=1e-12, atol=0) for name in whole)
