"""Memory and operations that configurations and documentation state are those that the planner finds."""

import re
from pathlib import Path

import pytest
import yaml

from lightning_modules.planning.plan import make_plan
from lightning_modules.planning.setting import read_setting
from lightning_modules.planning.simulated_step import FROZEN
from lightning_modules.shipped import config_names, find_config

ROOT = Path(__file__).parents[3]
AVERAGE = {"ema": {"decay": 0.999}}
UNET = "depth_stable_diffusion"
STATED = re.compile(r"([\d.]+) GiB by onestep plan")


def with_network(**options):
    return {"model": {"init_args": {"network": {"init_args": options}}}}


def header_of(name):
    lines = Path(find_config(name)).read_text().splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))


def planned(names, tmp_path, changes=None):
    overlay = tmp_path / "changes.yaml"
    overlay.write_text(yaml.safe_dump(changes or {}))
    return make_plan(read_setting([*names, *([overlay] if changes else [])]))


def gib(size):
    return size / 2**30


def in_training(plan):
    return max(size for phase, size in plan.books.phase_bytes.items() if phase != "validation")


def of_what_trains(plan):
    """Weights, gradients and two states of AdamW, in float32, on a device."""
    return 4 * 4 * plan.num_trained / plan.setting.situation.shards


def as_printed(size, digits=1):
    return pytest.approx(size, abs=0.51 * 10**-digits)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in config_names() if STATED.search(header_of(name))])
def test_the_memory_in_a_header_is_what_the_planner_says(name, tmp_path):
    for stated in STATED.findall(header_of(name)):
        assert float(stated) == as_printed(gib(planned([name], tmp_path).peak_bytes))


# What a header says of its configuration with another option, and of parts of the memory.
NF4 = r"quantization nf4 \(([\d.]+) GiB"
IN_4_BITS = r"of it ([\d.]+) the base in 4 bits"
OTHERWISE = [
    *(
        (f"{kind}_sd35", r"\{rank: 64\}' \(([\d.]+) GiB", with_network(lora={"rank": 64}))
        for kind in ("depth", "normals")
    ),
    *((f"{kind}_flux2_klein", NF4, with_network(quantization="nf4")) for kind in ("depth", "normals")),
    ("recipes/fe2e", NF4, with_network(quantization="nf4")),
]
HARDWARE = [
    ("hardware/24gb", r"RTX4090: ([\d.]+) GiB", None),
    ("hardware/24gb", r"([\d.]+) with ema.decay", AVERAGE),
    ("hardware/h200", r"H200: ([\d.]+) GiB", None),
    ("hardware/multi_gpu", r"hardware/multi_gpu: ([\d.]+) GiB", None),
    ("hardware/multi_gpu", r"([\d.]+) with ema.decay", AVERAGE),
    ("hardware/fsdp", r"hardware/fsdp: ([\d.]+) GiB on each GPU, in validation", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pattern", "changes"), [*OTHERWISE, *HARDWARE])
def test_the_memory_that_a_header_names_with_other_options_is_what_the_planner_says(name, pattern, changes, tmp_path):
    names = [UNET, name] if name.startswith("hardware") else [name]
    (stated,) = re.findall(pattern, header_of(name))
    assert float(stated) == as_printed(gib(planned(names, tmp_path, changes).peak_bytes))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in config_names() if re.search(IN_4_BITS, header_of(name))])
def test_the_memory_of_a_base_in_4_bits_is_what_the_planner_says(name, tmp_path):
    (stated,) = re.findall(IN_4_BITS, header_of(name))
    held = planned([name], tmp_path).books.by_kind()[FROZEN]
    assert float(stated) == as_printed(gib(held))


@pytest.mark.slow
def test_what_options_save_is_what_the_planner_says(tmp_path):
    card, ranks = header_of("hardware/24gb"), Path(find_config("hardware/multi_gpu")).read_text()
    before = planned([UNET, "hardware/24gb"], tmp_path)
    for pattern, changes in [
        (r"decoder_checkpointing: true saves ([\d.]+) GiB", with_network(decoder_checkpointing=True)),
        (
            r"8-bit states ([\d.]+)",
            {"model": {"init_args": {"optimizer": {"class_path": "bitsandbytes.optim.AdamW8bit"}}}},
        ),
    ]:
        (stated,) = re.findall(pattern, card)
        saved = before.peak_bytes - planned([UNET, "hardware/24gb"], tmp_path, changes).peak_bytes
        assert float(stated) == as_printed(gib(saved)), pattern
    (stated,) = re.findall(r"AdamW in float32 take ([\d.]+)", card)
    assert float(stated) == as_printed(gib(of_what_trains(before)))
    (stated,) = re.findall(r"second copy of the gradients, ([\d.]+) GiB", ranks)
    assert float(stated) == as_printed(gib(4 * before.num_trained))
    shard, whole = re.findall(r"([\d.]+) GiB on each in place of ([\d.]+)", header_of("hardware/fsdp"))[0]
    assert (float(shard), float(whole)) == (
        as_printed(gib(of_what_trains(before) / 8)),
        as_printed(gib(of_what_trains(before))),
    )


def rows(file, first):
    """The cells of the table whose first cell is given."""
    lines = (ROOT / "docs" / file).read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


SPEED = {cells[0]: cells for cells in rows("speed.md", "configuration")}


@pytest.mark.slow
@pytest.mark.parametrize("row", SPEED)
def test_a_row_of_the_table_of_memory_is_what_the_planner_says(row, tmp_path):
    _, peak, held, operations = SPEED[row]
    (name,) = re.findall(r"`([\w/]+)`", row)
    names = [UNET, name] if name.startswith("hardware") else [name]
    plan = planned(names, tmp_path)
    first, *further = re.findall(r"\d+\.\d", peak)
    assert float(first) == as_printed(gib(plan.peak_bytes))
    for text, size in [
        ("with an average", lambda: planned(names, tmp_path, AVERAGE).peak_bytes),
        ("in training", lambda: in_training(plan)),
    ]:
        if text in peak:
            assert float(further.pop(0)) == as_printed(gib(size()))
    assert not further, "every figure has been looked at"
    assert ("in validation" in peak) == (plan.books.peak_phase == "validation")
    assert float(held) == as_printed(gib(of_what_trains(plan)))
    assert float(operations) == as_printed(plan.flops_per_image / 1e12, digits=len(operations.partition(".")[2]))


BASES = {cells[0]: cells for cells in rows("recipes.md", "`configs/`")}


@pytest.mark.parametrize("row", BASES)
def test_the_table_of_other_bases_has_the_figures_of_the_headers(row):
    names = re.findall(r"`(\w+)`", row)
    stated = [STATED.search(header_of(name))[1] for name in names]
    assert len(names) == 2 and re.findall(r"\d+\.\d", BASES[row][-1]) in (stated, [*dict.fromkeys(stated)])
