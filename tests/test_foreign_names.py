"""No file builds on private names of a library, but for those that exist to hold them.

A private name may go or change its meaning with any release, and a name of one's own that a base class of a library
has, too, breaks that class. What is used is written down in one file per family of libraries, where tests hold it
against the installed versions.
"""

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("train", "geometry", "lightning_modules", "datamodules", "synthetic_scenes", "benchmarks", "checkpoints")
# Who may use private names, and of what.
HOLDERS = {
    "lightning_modules/lightning_internals.py": {"lightning", "torchmetrics", "diffusers"},
    "geometry/jsonargparse_internals.py": {"jsonargparse", "argparse"},
    "geometry/torch_internals.py": {"torch"},
    # Its one subject is to make the standard library's reader of tar files safe, from within.
    "datamodules/shards/archives.py": {"tarfile"},
}
# Documented, in spite of their names; the second is how a pipeline of diffusers says which parts it may lack.
DOCUMENTED = {"os._exit", "DiffusionPipeline._optional_components"}
# Measurements that look into the parser of a command, and into what the proof of compiled parts records.
LOOKING_INSIDE = {"benchmarks/compiled_rounding.py", "benchmarks/wrong_options/__main__.py"}


def is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name != "_"


def product_files():
    files = [ROOT / "train.py", *(file for folder in OWN[1:] for file in sorted((ROOT / folder).rglob("*.py")))]
    return [file for file in files if "tests" not in file.parts]


def place_of(file):
    return file.relative_to(ROOT).as_posix()


def defined_in(tree):
    """Private names that a file defines: functions, classes, variables, fields and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_in(code):
    """Private names that a file uses and does not define, with their lines."""
    tree = ast.parse(code)
    own = set(defined_in(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [node.attr] if ast.unparse(node) not in DOCUMENTED else []
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            names = [str(argument.value) for argument in node.args[1:2] if isinstance(argument, ast.Constant)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if is_private(name) and name not in own)


def test_no_file_uses_a_private_name_that_is_not_its_own():
    files = [file for file in product_files() if place_of(file) not in HOLDERS.keys() | LOOKING_INSIDE]
    assert len(files) > 200
    found = {place_of(file): list(foreign_in(file.read_text(encoding="utf-8"))) for file in files}
    assert not {place: names for place, names in found.items() if names}


@pytest.mark.parametrize(
    "code",
    [
        "trainer._signal_connector",
        "trainer.fit_loop._data_fetcher = None",
        "from torch.utils._pytree import tree_map",
        "import torch._dynamo",
        "getattr(model, '_repeated_blocks', None)",
        "super()._save_checkpoint(file)",
    ],
)
def test_a_private_name_of_a_library_is_noticed(code):
    assert list(foreign_in(code))


@pytest.mark.parametrize(
    "code",
    ["os._exit(1)", "class A:\n    def __init__(self): self._b = 1\na._b", "x.__class__", "def _f(): pass\n_f()"],
)
def test_names_of_ones_own_and_documented_ones_pass(code):
    assert not list(foreign_in(code))


def names_in(code):
    """Names of attributes and globals in compiled code, nested functions included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant)
    return names


def private_names_of(kind):
    """Private names that a class has or uses, so that a subclass with a name of its own alike would disturb it."""
    names = set(vars(kind)) | set(getattr(kind, "__annotations__", {}))
    for member in vars(kind).values():
        functions = (member.fget, member.fset) if isinstance(member, property) else (member,)
        for function in functions:
            code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
            names |= names_in(code) if code is not None else set()
    return {name for name in names if is_private(name)}


def foreign_bases(kind):
    return [base for base in kind.__mro__ if base.__module__.split(".")[0] not in (*OWN, "builtins", "tests")]


def named_in_class(node):
    """Names that a class defines, or uses of itself."""
    yield from defined_in(node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and (is_self(inner.value) or ast.unparse(inner.value) == "super()"):
            yield inner.attr


def shared_with_foreign_bases(kind, node):
    """Private names that a class shares with a base from a library, and the base."""
    shared = {}
    for base in foreign_bases(kind):
        for name in private_names_of(base) & set(named_in_class(node)):
            if f"{base.__name__}.{name}" in DOCUMENTED:
                continue
            shared[name] = f"{base.__module__}.{base.__qualname__}"
    return shared


def classes_of(file):
    """Classes of a file with their syntax trees; files that are programs are not imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    if not nodes or file.stem == "__main__":
        return []
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    return [(getattr(module, node.name), node) for node in nodes]


def test_no_class_shares_a_private_name_with_a_base_from_a_library():
    found, seen = {}, set()
    for file in product_files():
        for kind, node in classes_of(file):
            shared = shared_with_foreign_bases(kind, node)
            libraries = {base.split(".")[0] for base in shared.values()}
            seen |= libraries
            if libraries - HOLDERS.get(place_of(file), set()):
                found[f"{place_of(file)}: {node.name}"] = shared
    assert not found
    assert seen >= {"lightning", "tarfile"}  # the holders' own: what is looked for can be found


def test_a_name_that_only_the_constructor_of_a_library_sets_is_noticed():
    code = "class Kept(ModelCheckpoint):\n    def due(self, step): return step % self._every_n_train_steps == 0"
    from lightning.pytorch.callbacks import ModelCheckpoint

    kept = type("Kept", (ModelCheckpoint,), {"__module__": "lightning_modules.kept"})
    assert shared_with_foreign_bases(kept, ast.parse(code).body[0]).keys() == {"_every_n_train_steps"}
