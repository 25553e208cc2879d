"""Collects the wheels that a machine without network lacks to run this project.

Run ``python -m benchmarks.collect_wheels --have PACKAGES --out .wheels`` here, where PACKAGES is what ``pip list
--format=freeze`` (or a list of names, one a line) printed there. There, from the folder of the project::

    python -m pip install --no-index --no-deps --target SITE .wheels/*.whl && export PYTHONPATH=SITE

Contract: what is needed is found from the packages installed here, from this project on, with the extra lora and
pytest; a package that is there is taken as it is, and what it needs is thought to be there, too, unless the list says
a version that is not in the range wanted. Where the list says none, it is collected if a collected package wants a
range of it: a newer package asks for newer ones. Versions are those installed here.
"""

import argparse
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = "onestep-geometry"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def plain(name: str) -> str:
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(have: dict[str, str], python: str) -> dict[str, str]:
    """Return what is needed and not there, with the versions installed here.

    Args:
        have: versions of the packages that are there, by their plain names; empty where it is not known.
        python: version of Python there, such as 3.12.
    """
    found: dict[str, str] = {}
    waiting = [(Requirement(f"{PROJECT}[lora]"), False), (Requirement("pytest"), False)]
    while waiting:
        wanted, of_collected = waiting.pop()
        name = plain(wanted.name)
        if name in found or (name in have and _serves(have[name], wanted, of_collected)):
            continue
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            raise SystemExit(
                f"error: {wanted.name} is not installed here; install it, for its needs are read."
            ) from None
        if name != PROJECT:
            found[name] = package.version
        for line in package.requires or ():
            needed = Requirement(line)
            extras = wanted.extras or {""}
            if needed.marker is None or any(_holds(needed, extra, python) for extra in extras):
                waiting.append((needed, name != PROJECT))
    return found


def _serves(version: str, wanted: Requirement, of_collected: bool) -> bool:
    """Return whether a package that is there will do."""
    if not version:
        return not (of_collected and wanted.specifier)
    return wanted.specifier.contains(version, prereleases=True)


def listed(text: str) -> dict[str, str]:
    """Return the packages of a list by their plain names, each with its version where one is said.

    Args:
        text: a package a line, as ``pip list --format=freeze`` prints them, or names alone.
    """
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, *rest = re.split(r"[=@ ,]+", line)
        found[plain(name)] = rest[0] if rest and re.fullmatch(r"\d[\w.+!-]*", rest[0]) else ""
    return found


def _holds(needed: Requirement, extra: str, python: str) -> bool:
    assert needed.marker is not None
    environment = {
        "extra": extra,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
    }
    return needed.marker.evaluate(environment)


def main(args: list[str] | None = None) -> int:
    """Collect the wheels, and print their sizes.

    Args:
        args: the command line; None is that of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--have", type=Path, required=True, help="list of the packages that are there")
    parser.add_argument("--python", default="3.12", help="version of Python there (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path(".wheels"), help="folder for the wheels (default: %(default)s)"
    )
    parser.add_argument("--most_mb", type=float, default=64, help="fail if they are larger (default: %(default)s)")
    options = parser.parse_args(args)
    needed = missing(listed(options.have.read_text()), options.python)
    platforms = [word for each in _PLATFORMS for word in ("--platform", each)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "-q",
        "-d",
        str(options.out),
    ]
    command += ["--python-version", options.python, "--implementation", "cp", *platforms]
    status = subprocess.run([*command, *(f"{name}=={version}" for name, version in sorted(needed.items()))]).returncode
    if status:
        return status
    sizes = {file.name: file.stat().st_size for file in sorted(options.out.glob("*.whl"))}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size / 2**20:7.2f} MiB  {name}")
    total = sum(sizes.values()) / 2**20
    print(f"{total:7.2f} MiB  {len(sizes)} wheels in {options.out}")
    return int(total > options.most_mb)


if __name__ == "__main__":
    sys.exit(main())
