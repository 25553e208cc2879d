"""Sizes that keep a file one subject and a function one thought. When one is outgrown, ask which concept is missing."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("geometry", "lightning_modules", "datamodules", "synthetic_scenes", "benchmarks", "checkpoints")
MAX_LINES_OF_FILE = 320
MAX_LINES_OF_FUNCTION = 60  # from def to its last line, signature and docstring included
NO_SUBJECT = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}


def product_files():
    files = [ROOT / "train.py", *(file for folder in PRODUCT for file in sorted((ROOT / folder).rglob("*.py")))]
    assert len(files) > 200
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def functions_of(code):
    """Names and lengths of functions and methods."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def too_long(files):
    """Files and functions above the limits, with their lines."""
    sizes = {name: len(code.splitlines()) for name, code in files.items()}
    long = {name: size for name, size in sizes.items() if size > MAX_LINES_OF_FILE}
    for file, code in files.items():
        long |= {f"{file}: {name}": size for name, size in functions_of(code) if size > MAX_LINES_OF_FUNCTION}
    return long


def test_no_file_and_no_function_outgrows_its_subject():
    assert not too_long(product_files())


def test_a_file_or_a_function_that_is_too_long_is_noticed():
    method = "class A:\n    def long(self):\n        '''\n" + "\n" * 57 + "        '''\n        return 1\n"
    assert too_long({"a.py": method}) == {"a.py: long": 61}
    assert too_long({"a.py": method.replace("\n\n", "\n", 1)}) == {}
    assert too_long({"b.py": "x = 1\n" * 321, "c.py": "x = 1\n" * 320}) == {"b.py": 321}


def test_every_file_is_named_after_its_subject():
    assert not [name for name in product_files() if Path(name).name in NO_SUBJECT]
