"""The planner answers for every shipped configuration and card; what it proposes fits, and is what fit takes."""

import shlex

import pytest
import yaml

import train
from geometry.errors import InputError
from lightning_modules.planning.cards import card_named, card_names
from lightning_modules.planning.plan import make_plan
from lightning_modules.planning.report import describe_on
from lightning_modules.planning.setting import read_setting
from lightning_modules.planning.ways_to_fit import _ways, cheapest_way
from lightning_modules.shipped import config_names, find_config

TOY_SIZE = (32, 32)
OVERLAYS = [name for name in config_names() if name.startswith("hardware/")]
TRANSFORMERS = ["depth_sd35", "depth_flux_kontext", "recipes/fe2e"]


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


def test_a_configuration_is_planned_by_itself_or_laid_over_another():
    assert {*names_with_a_model(), *OVERLAYS} == {*config_names()}, "these are planned by the tests below"


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
@pytest.mark.parametrize("name", ["depth_stable_diffusion", "diffusion_depth", "recipes/lotus_d"])
@pytest.mark.parametrize("hardware", OVERLAYS)
def test_the_planner_answers_for_every_hardware_on_every_card(hardware, name):
    assert_answered_on_every_card([name, hardware])


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("hardware", OVERLAYS)
def test_hardware_for_a_unet_is_refused_for_transformers_by_the_name_of_an_option(hardware, name):
    sharding_4_bits = hardware == "hardware/fsdp" and name == "depth_flux_kontext"
    reason = "leave out network.quantization" if sharding_4_bits else "PretrainedNetwork: there is no option unet_ch"
    with pytest.raises(InputError, match=reason) as refused:
        make_plan(read_setting([name, hardware]))
    assert "\n" not in str(refused.value)


def test_fit_refuses_hardware_for_a_unet_for_transformers_with_the_same_words(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", "--config", "depth_sd35", "--config", "hardware/24gb", "--print_config"])
    assert ended.value.code == 2
    assert "PretrainedNetwork: there is no option unet_checkpointing" in capsys.readouterr().err


def as_fit_reads_it(names, options, file, capsys):
    """The setting of configurations with the words of a proposal after them, by way of fit's own parser."""
    configs = [word for name in names for word in ("--config", name)]
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", *configs, *shlex.split(" ".join(options)), "--print_config"])
    printed = capsys.readouterr()
    assert ended.value.code in (0, None), printed.err
    file.write_text(printed.out)
    return read_setting([file])


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [["depth_stable_diffusion", "hardware/h200"], ["depth_flux_kontext"]], ids=lambda names: names[-1]
)
def test_fit_takes_the_words_of_every_proposal_for_what_was_planned(names, tmp_path, capsys):
    ways = list(_ways(read_setting(names)))
    assert ways
    for way in ways:
        read = as_fit_reads_it(names, way.options, tmp_path / "printed.yaml", capsys)
        assert (read.situation, read.devices) == (way.setting.situation, way.setting.devices), way.options
        planned, taken = (each.model["init_args"]["network"]["init_args"] for each in (way.setting, read))
        assert bool(taken.get("compile")) == bool(planned.get("compile")), way.options
        for name in ("channels_last", "quantization", "vae_precision"):
            assert taken.get(name, False) == planned.get(name, False), way.options


# A configuration, a card that is too small for it, and the option that the proposal ends with.
TOO_SMALL = {
    "bf16": (["depth_stable_diffusion"], "21GB", "--model.network.vae_precision=bfloat16"),
    "smaller batches": (["depth_stable_diffusion", "hardware/h200"], "RTX4090", "--trainer.accumulate_grad_batches=32"),
    "8-bit states": (["depth_sd35"], "RTX5090", "--model.optimizer=bitsandbytes.optim.AdamW8bit"),
    "Adam in 8 bits": (["diffusion_depth"], "12GB", "--model.optimizer=bitsandbytes.optim.Adam8bit"),
    "adapters": (["depth_sd35"], "RTX4090", "--model.network.lora={rank: 16}"),
    "4 bits": (["recipes/fe2e"], "H100", "--model.network.quantization=nf4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TOO_SMALL)
def test_a_proposal_that_is_planned_anew_from_its_words_has_the_peak_that_was_proposed(case, tmp_path, capsys):
    names, card, last = TOO_SMALL[case]
    card, found = card_named(card), make_plan(read_setting(names))
    assert not found.fits(card)
    way = cheapest_way(found, card)
    assert way is not None
    again = make_plan(as_fit_reads_it(names, way.options, tmp_path / "printed.yaml", capsys))
    print(
        f"{' '.join(names)} on {card.name}: {way.options}: {way.peak_bytes / 2**30:.3f}, {again.peak_bytes / 2**30:.3f}"
    )
    assert shlex.split(way.options[-1]) == [last]
    assert again.setting.images_per_step == found.setting.images_per_step
    assert again.peak_bytes == pytest.approx(way.peak_bytes, rel=0.005)
    assert again.fits(card)


@pytest.mark.slow
def test_a_proposal_to_shard_that_is_planned_anew_from_its_words_has_the_peak_that_was_proposed(tmp_path, capsys):
    names = ["depth_stable_diffusion"]
    way = next(way for way in _ways(read_setting(names)) if way.setting.is_sharded)
    again = make_plan(as_fit_reads_it(names, way.options, tmp_path / "printed.yaml", capsys))
    assert again.setting.situation.shards == way.setting.situation.shards == 2
    assert again.peak_bytes == pytest.approx(make_plan(way.setting).peak_bytes, rel=0.005)
