"""A base family from outside the packages, in whole runs of two ranks: sharded, killed, resumed, with its average."""

import pytest

from tests.helpers import runs

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
runs.start_server()

NETWORK = {"class_path": "tests.lightning_modules.networks.test_other_family.TinyFlow"}
TWO_RANKS = (
    "--data.num_workers=1",
    "--trainer.max_steps=3",
    "--data.val_batch_size=1",
    "--checkpoints.every_n_steps=1",
)
SHARDED = ("--trainer.strategy.class_path=lightning_modules.FullySharded",)


def test_sharded_weights_and_their_average_learn_what_unsharded_ones_learn_and_survive_a_kill(tmp_path):
    config = runs.prepare(tmp_path / "data", 3, NETWORK)
    unsharded, sharded = tmp_path / "unsharded", tmp_path / "sharded"
    assert runs.fit(unsharded, config, *TWO_RANKS, world_size=2) == [0, 0], runs.log_of(unsharded)
    killed = runs.fit(sharded, config, *TWO_RANKS, *SHARDED, *runs.kill_at(5, rank=1), world_size=2)
    assert killed[1] == -9, runs.log_of(sharded)
    assert runs.fit(sharded, config, *TWO_RANKS, *SHARDED, world_size=2) == [0, 0], runs.log_of(sharded)
    runs.assert_close_end(sharded, unsharded)
    average, weights = (runs.last(sharded)[key] for key in ("ema_state_dict", "state_dict"))
    assert average.keys() == weights.keys() and all(name.startswith("network.") for name in weights)
    assert any(not average[name].equal(weights[name]) for name in weights)
