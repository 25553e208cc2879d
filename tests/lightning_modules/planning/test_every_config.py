"""The planner answers for every shipped configuration and every card, and what it proposes fits."""

import shlex

import pytest
import yaml

import train
from lightning_modules.planning.cards import card_named, card_names
from lightning_modules.planning.plan import make_plan
from lightning_modules.planning.report import describe_on
from lightning_modules.planning.setting import read_setting
from lightning_modules.planning.ways_to_fit import _ways, cheapest_way
from lightning_modules.shipped import config_names, find_config

TOY_SIZE = (32, 32)


def names_with_a_model():
    """Configurations that can be trained by themselves; the others are laid over one of these."""
    configs = {name: yaml.safe_load(open(find_config(name)).read()) for name in config_names()}
    return sorted(name for name, config in configs.items() if "class_path" in (config.get("model") or {}))


def assert_answered_on_every_card(names, size=None, cards=()):
    found = make_plan(read_setting(names, size))
    for card in map(card_named, cards or card_names()):
        way = None if found.fits(card) else cheapest_way(found, card)
        text = "\n".join(describe_on(found, card, 1, way, 0.3))
        if found.fits(card):
            assert f"{card.name}: fits" in text
        elif way is None:
            assert "does not fit" in text and "no options were found" in text
        else:
            assert "does not fit" in text and all(option in text for option in way.options)
            assert way.peak_bytes <= card.room_bytes


def test_the_planner_answers_for_a_toy_on_every_card():
    assert_answered_on_every_card(["demo"], TOY_SIZE)


@pytest.mark.slow
def test_the_planner_answers_for_a_toy_on_cards_that_are_too_small_even_when_it_is_sharded():
    assert_answered_on_every_card(["demo"], TOY_SIZE, ("0.81GB", "0.5GB"))


@pytest.mark.slow
@pytest.mark.parametrize("name", names_with_a_model())
def test_the_planner_answers_for_every_configuration_on_every_card(name):
    assert_answered_on_every_card([name])


@pytest.mark.slow
@pytest.mark.parametrize("hardware", ["24gb", "fsdp", "h200", "multi_gpu"])
def test_the_planner_answers_for_every_hardware_on_every_card(hardware):
    assert_answered_on_every_card(["depth_stable_diffusion", f"hardware/{hardware}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [["depth_stable_diffusion", "hardware/h200"], ["depth_flux_kontext"]], ids=lambda names: names[-1]
)
def test_fit_takes_the_words_of_every_proposal_for_what_was_planned(names, tmp_path, capsys):
    configs = [word for name in names for word in ("--config", name)]
    ways = list(_ways(read_setting(names)))
    assert ways
    for way in ways:
        with pytest.raises(SystemExit) as ended:
            train.main(["fit", *configs, *shlex.split(" ".join(way.options)), "--print_config"])
        assert ended.value.code in (0, None), capsys.readouterr().err
        (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
        read = read_setting([tmp_path / "printed.yaml"])
        assert (read.situation, read.devices) == (way.setting.situation, way.setting.devices), way.options
        planned, taken = (each.model["init_args"]["network"]["init_args"] for each in (way.setting, read))
        assert bool(taken.get("compile")) == bool(planned.get("compile")), way.options
        for name in ("channels_last", "quantization", "vae_precision"):
            assert taken.get(name, False) == planned.get(name, False), way.options
