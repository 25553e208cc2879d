"""Imports run one way: train -> lightning_modules, (synthetic_scenes -> datamodules) -> geometry -> torch."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"geometry", "lightning_modules", "datamodules", "synthetic_scenes", "train"}
# What each part may import besides the standard library and what is listed for those before it.
ALLOWED_OWN = {
    "geometry": {"geometry"},
    "lightning_modules": {"geometry", "lightning_modules"},
    "datamodules": {"geometry", "datamodules"},
    "synthetic_scenes": {"geometry", "datamodules", "synthetic_scenes"},
}
CONFINED = {
    "webdataset": ("datamodules/",),
    "diffusers": (
        "lightning_modules/networks/",
        "lightning_modules/export",
        # Members of an ensemble are combined as the pipelines of Marigold do, when an ensemble is asked for.
        "geometry/modalities/depth.py",
        "geometry/modalities/normals.py",
    ),
}
FRAMEWORKS = {"lightning", "diffusers", "transformers", "webdataset", "cv2", "h5py"}
LAZY_IN_GEOMETRY = {
    "geometry/modalities/depth.py": {"diffusers"},
    "geometry/modalities/normals.py": {"cv2", "diffusers"},
}


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for package in ALLOWED_OWN for file in sources(package)}
PROGRAMS = {module_name(file): file for file in [ROOT / "train.py", *sources("benchmarks"), *sources("checkpoints")]}
ALL_MODULES = MODULES | PROGRAMS


def import_statements(nodes, at_once):
    """Import statements below nodes; with ``at_once`` only those that run when the module is imported."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif at_once and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from import_statements(node.orelse, at_once)
        else:
            yield from import_statements(ast.iter_child_nodes(node), at_once)


def imported_modules(file, at_once=False):
    """Full names of what a file imports; what stands behind ``from x import`` may be a module or not."""
    names = set()
    for node in import_statements([ast.parse(file.read_text(encoding="utf-8"))], at_once):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imports_of(file, at_once=False):
    return {name.split(".")[0] for name in imported_modules(file, at_once)}


@pytest.mark.parametrize("package", ALLOWED_OWN)
def test_packages_import_only_what_lies_below_them(package):
    files = sources(package)
    assert files
    for file in files:
        assert imports_of(file) & OWN <= ALLOWED_OWN[package], file.relative_to(ROOT)


def test_geometry_is_free_of_frameworks():
    for file in sources("geometry"):
        place = file.relative_to(ROOT).as_posix()
        assert not imports_of(file, at_once=True) & FRAMEWORKS, place
        assert imports_of(file) & FRAMEWORKS == LAZY_IN_GEOMETRY.get(place, set()), place


def own_imports(name):
    """Modules of this project that a module imports, at once, later or for its types, but not those that it lies in."""
    found = imported_modules(ALL_MODULES[name]) & ALL_MODULES.keys()
    # ``from package import module`` needs the package, too, but not before the module: only names that are none count.
    packages = {other for other in found if ALL_MODULES[other].name == "__init__.py"}
    return {other for other in found - {name} if other not in packages or not f"{name}.".startswith(f"{other}.")}


def test_no_module_imports_itself_by_way_of_others():
    assert len(MODULES) > 150
    assert own_imports("benchmarks.soak") >= {"benchmarks.soak_trial"}
    assert own_imports("lightning_modules.training.ema") >= {"lightning_modules.estimator"}
    try:
        graphlib.TopologicalSorter({name: own_imports(name) for name in ALL_MODULES}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_folder_of_sources_is_installed():
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = sorted(name for name, file in MODULES.items() if file.name == "__init__.py")
    assert sorted(installed) == sorted([*packages, "onestep"])  # onestep: what lies beside them


# Both packages need these, and neither may import the other.
# Modalities say how they lie in files, in which values are arrays of NumPy.
NEEDED_IN_GEOMETRY = {
    "images.py": {"PIL", "numpy", "simplejpeg"},
    "locks.py": {"filelock"},
    # Normals from depth are found on a CPU, in bands too small for PyTorch's calls.
    "inverse_depth.py": {"numpy"},
    "padded_images.py": {"numpy"},
    "planes.py": {"numpy"},
    "npy_arrays.py": {"numpy"},
    # Commands of both packages are read by the same parser.
    "jsonargparse_internals.py": {"jsonargparse"},
    "command.py": {"jsonargparse"},
    "options.py": {"docstring_parser", "jsonargparse"},
    "parser.py": {"jsonargparse", "yaml"},
    **{file.name: {"numpy"} for file in (ROOT / "geometry/modalities").glob("*.py")},
}


def test_geometry_needs_torch_alone_but_where_files_are_opened_or_locked_values_stored_and_planes_found():
    for file in sources("geometry"):
        needs = imports_of(file, at_once=True) - sys.stdlib_module_names - {"geometry", "torch"}
        assert needs <= NEEDED_IN_GEOMETRY.get(file.name, set()), file
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


def test_benchmarks_and_research_share_helpers_with_the_tests_and_no_test():
    users = [*sources("benchmarks"), *sources("research"), *sources("tests/helpers")]
    found = {name for file in users for name in imported_modules(file) if name.split(".")[0] == "tests"}
    assert "tests.helpers.tiny" in found
    assert all(name == "tests" or name.startswith("tests.helpers") for name in found), found


@pytest.mark.parametrize("package", [*ALLOWED_OWN, "train.py"])
def test_the_product_needs_neither_research_nor_benchmarks_nor_tests(package):
    for file in sources(package) or [ROOT / package]:
        assert not imports_of(file) & {"research", "benchmarks", "tests", "checkpoints"}, file
