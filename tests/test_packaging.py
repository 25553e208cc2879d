"""Files that name the project's version, or versions of what it needs, agree with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = ("requirements.lock", "requirements-lowest.lock")


def asked_for():
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    return [asked for asked in map(Requirement, texts) if asked.name != PROJECT["name"]]


def locked(name, python):
    """Versions by name that a lock file has for a Python on Linux."""
    system = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    system |= {"platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        entry = Requirement(line)
        if entry.marker is None or entry.marker.evaluate(system):
            found[canonicalize_name(entry.name)] = str(entry.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_the_locked_versions_are_those_that_are_asked_for(name, python):
    versions = locked(name, python)
    for asked in asked_for():
        version = versions.get(canonicalize_name(asked.name))
        assert version, f"{asked.name} is not in {name}: run .ci/lock"
        assert asked.specifier.contains(version), f"{asked} but {name} has {version}: run .ci/lock"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_name_versions_alone_and_no_place(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) > 100
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+]+( ;.*)?", line) for line in lines)


def test_the_oldest_versions_are_locked_where_the_oldest_are_tested():
    lowest = locked("requirements-lowest.lock", "3.11")
    bounds = {asked.name: [part for part in asked.specifier if part.operator == ">="] for asked in asked_for()}
    (bound,) = bounds["torch"]
    assert Version(lowest["torch"]) == Version(bound.version)


def test_hooks_before_commits_run_the_versions_of_ci():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    named = {text for hook in hooks for text in hook.get("additional_dependencies", ())}
    tools = {text for text in PROJECT["optional-dependencies"]["test"] if text.startswith(("ruff", "mypy"))}
    assert named and named <= tools and {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "mypy"}


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert "2409.11355" in citation["preferred-citation"]["url"]


def test_the_docker_image_gets_every_file_that_it_is_built_from():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in sent)
    packages = {
        name.split(".")[0]
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    }
    assert (packages - {"onestep"}) | {"configs", "checkpoints", "train.py", "README.md", "LICENSE"} <= sent
    assert set(re.findall(r"requirements[\w.-]*lock", (ROOT / "Dockerfile").read_text())) <= sent
