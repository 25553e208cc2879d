"""Imports run one way: train -> lightning_modules, datamodules -> geometry -> torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"geometry", "lightning_modules", "datamodules", "train"}
# What each part may import besides the standard library and what is listed for those before it.
ALLOWED_OWN = {
    "geometry": {"geometry"},
    "lightning_modules": {"geometry", "lightning_modules"},
    "datamodules": {"geometry", "datamodules"},
}
CONFINED = {
    "webdataset": "datamodules/",
    "diffusers": (
        "lightning_modules/networks/",
        "lightning_modules/ensembling.py",
        "lightning_modules/export",
    ),
}


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports_of(file):
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED_OWN)
def test_packages_import_only_what_lies_below_them(package):
    files = sources(package)
    assert files
    for file in files:
        assert imports_of(file) & OWN <= ALLOWED_OWN[package], file.relative_to(ROOT)


def test_geometry_is_free_of_frameworks():
    for file in sources("geometry"):
        assert not imports_of(file) & {"lightning", "diffusers", "transformers", "webdataset", "cv2", "h5py"}, file


def test_geometry_needs_torch_alone_but_where_pictures_are_opened():
    # Both packages open pictures and neither may import the other: what decides which pictures are let in lies below.
    for file in sources("geometry"):
        needs = imports_of(file) - sys.stdlib_module_names - {"geometry", "torch"}
        assert not needs or (file.name == "image_files.py" and needs == {"PIL", "numpy", "simplejpeg"}), file
    code = "import sys, geometry; print(sorted({'PIL', 'simplejpeg', 'cv2'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("library", CONFINED)
def test_libraries_that_change_often_are_confined_to_their_place(library):
    users = [file.relative_to(ROOT).as_posix() for package in ALLOWED_OWN for file in sources(package)]
    users = [file for file in users if library in imports_of(ROOT / file)]
    assert users
    assert all(file.startswith(CONFINED[library]) for file in users), users


def test_help_does_not_wait_for_libraries_that_it_does_not_need():
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(output.rsplit("LOADED", 1)[1].split())
    assert not loaded & {"diffusers", "webdataset", "cv2", "h5py", "numcodecs"}
