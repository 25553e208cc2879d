"""Every file that a command reads once missing, empty, cut off and of another kind, and how the command ends.

The files are found by running each command once and noting what it opens; of files whose names differ in digits alone,
one is tried. Right is status 2 with one line, or an end without an error (a bad sample is skipped and named). Wrong is
a traceback, a hang, or a message of several lines:

    python -m benchmarks.wrong_files --out /tmp/wrong_files
"""

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.wrong_options.values import Material
from tests.helpers import commands, runs

# What reads the files of predict, and those of a base as fit does.
_AS_ANOTHER = ("serve", "conditioning")
# What says with status 1 that some of its files were found wrong.
_COUNTING = ("prepare check", "predict")
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "another kind": lambda data: bytes(range(256)) * 9,
}


def files_read(words: list[str], log: Path, folders: list[Path]) -> list[Path]:
    """Return the files below some folders that a command reads, of each kind one.

    Args:
        words: the command line.
        log: where it may print to.
        folders: the folders.

    Raises:
        AssertionError: the command does not succeed.
    """
    status, printed = commands.run(words, log, 0, folders)
    assert status == 0, printed
    opened = [Path(line.partition(" ")[2]) for line in printed.splitlines() if line.startswith("opened ")]
    # Libraries in other languages open weights by themselves.
    opened += [file for path in list(opened) for file in path.parent.glob("*.safetensors")]
    kinds = {re.sub(r"\d+", "#", str(path)): path for path in opened[::-1] if path.is_file()}
    return sorted(kinds.values())


def cases(name: str, material: Material, work: Path) -> Iterator[tuple[str, str, int | None, str]]:
    """Yield of every case of a command: the file, the damage, the status (None for a hang), and what was printed.

    Args:
        name: the command.
        material: the data; it is as before after every case.
        work: an empty folder.
    """
    out, log = work / "out", work / "log.txt"
    found = files_read(commands.begin(name, material, out, workers=1), log, [material.folder, out])
    shutil.rmtree(out)
    for file in found:
        for damage, apply in DAMAGES.items():
            words = commands.begin(name, material, out, workers=1)
            if not file.exists():  # the command has written it
                shutil.rmtree(out)
                break
            data = file.read_bytes()
            file.unlink()
            if (content := apply(data)) is not None:
                file.write_bytes(content)
            status, printed = commands.run(words, log)
            if file.is_relative_to(material.folder):
                file.write_bytes(data)
            shutil.rmtree(out)
            yield str(file.relative_to(work.parent)), damage, status, printed


def is_right(status: int | None, printed: str) -> bool:
    """Whether a command ended as it should."""
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    return "Traceback" not in printed and (status == 0 or (status == 2 and len(errors) == 1))


def main() -> None:
    """Run all cases; status 1 if one ended wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=[], help="Which commands; all by default.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of material and logs; it must be new.")
    options = parser.parse_args()
    runs.start_server()
    options.out.mkdir(parents=True)
    material = Material(options.out.absolute() / "material")
    commands.extend(material)
    counts = dict.fromkeys(("refused", "taken", "WRONG"), 0)
    for name in options.commands or [name for name in commands.names() if name not in _AS_ANOTHER]:
        work = options.out.absolute() / name.replace(" ", "-")
        work.mkdir()
        for file, damage, status, printed in cases(name, material, work):
            is_as_meant = is_right(0 if name in _COUNTING and status == 1 else status, printed)
            verdict = ("refused" if status else "taken") if is_as_meant else "WRONG"
            counts[verdict] += 1
            told = next((line for line in printed.splitlines()[::-1] if line.strip()), "")
            print(f"{verdict:8}{name}: {file} {damage}: status {status}: {told[-300:]}", flush=True)
            if verdict == "WRONG":
                (work / f"wrong-{counts['WRONG']}.txt").write_text(printed)
    print(json.dumps(counts))
    raise SystemExit(bool(counts["WRONG"]))


if __name__ == "__main__":
    main()
