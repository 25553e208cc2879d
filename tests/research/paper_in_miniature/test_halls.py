"""No scene is seen twice: not by the base and by the evaluation, not by training and by the evaluation."""

from dataclasses import replace

import numpy as np
import pytest

from geometry.errors import InputError
from research.paper_in_miniature.halls import SEEDS_OF_THE_BASE, check_disjoint
from research.paper_in_miniature.settings import FULL, QUICK, DataSettings
from research.tiny_stable_diffusion.scenes import SIZES
from synthetic_scenes import SyntheticHypersim
from synthetic_scenes.rooms import HALLS, random_room


def stream(*numbers):
    """Return what tells one of NumPy's random streams from all others."""
    return tuple(np.random.SeedSequence(numbers).generate_state(4))


def streams_of_the_base():
    """Streams of all scenes that the committed base was trained or measured on (checkpoints/README.md)."""
    most = 1500
    return {stream(split, number, kind) for split in (0, 1) for number in range(most) for kind in range(len(SIZES))}


def streams_of_rooms(rooms, seed):
    """Streams of the rooms that ``SyntheticHypersim`` furnishes from a seed, and of its poses."""
    return {stream(seed, 1, scene) for scene in range(rooms)} | {stream(seed, 2, scene, 0) for scene in range(rooms)}


@pytest.mark.parametrize("settings", [FULL, QUICK], ids=["full", "quick"])
def test_evaluation_shares_no_scene_with_training_or_with_the_base(settings):
    data = settings.data
    training = streams_of_rooms(data.training_rooms, data.training_seed)
    evaluation = streams_of_rooms(data.evaluation_rooms, data.evaluation_seed)
    assert len(evaluation) == 2 * data.evaluation_rooms
    assert not evaluation & training
    assert not (evaluation | training) & streams_of_the_base()


def test_the_comparison_of_streams_would_find_a_shared_scene():
    shared = streams_of_the_base() & streams_of_rooms(100, seed=0)
    assert stream(0, 1, 1) in shared  # room 1 of seed 0 is hall 1 of the base
    of_the_base = random_room(np.random.default_rng([0, 1, list(SIZES).index("halls")]), HALLS)
    of_the_demo = random_room(np.random.default_rng([0, 1, 1]), HALLS)
    assert np.array_equal(of_the_base[1], of_the_demo[1])


@pytest.mark.parametrize("seed", [*SEEDS_OF_THE_BASE, DataSettings().training_seed])
def test_an_evaluation_on_known_scenes_is_refused(seed):
    with pytest.raises(InputError, match="seen twice"):
        check_disjoint(replace(DataSettings(), evaluation_seed=seed))
    check_disjoint(DataSettings())


def test_the_evaluation_has_at_least_300_images():
    scenes = FULL.data.evaluation_rooms
    held_out = round(SyntheticHypersim(seed=0).val_fraction * scenes)
    assert scenes - held_out >= 300


def test_all_arms_of_a_seed_see_the_same_images_in_the_same_order(halls):
    orders = []
    for seed in (0, 0, 1):
        data = halls.training(seed, batch_size=4)
        data.setup("fit")
        batches = iter(data.train_dataloader())
        orders.append([next(batches).key for _ in range(5)])
    assert orders[0] == orders[1] != orders[2]


def test_learning_rates_are_chosen_on_images_that_no_run_trains_on_or_is_judged_on(halls):
    selection, evaluation, training = halls.selection(), halls.evaluation(), halls.training(0, batch_size=1)
    for data, stage in ((selection, "validate"), (evaluation, "validate"), (training, "fit")):
        data.setup(stage)
    seen = {image for _ in range(8) for image in images(training.train_dataloader())}
    chosen_on, judged_on = (images(data.val_dataloader()[0]) for data in (selection, evaluation))
    assert len(seen) > 40 and len(chosen_on) == 3 and len(judged_on) == 18
    assert not chosen_on & seen and not judged_on & (seen | chosen_on)


def images(loader):
    """Return the contents of the images of a loader."""
    images = [image for batch in loader for image in batch.image]
    return {image.numpy().tobytes() for image in images}
