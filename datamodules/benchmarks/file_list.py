"""File lists: which samples of a benchmark count, one per line, as the authors of Marigold publish them."""

from pathlib import Path

from datamodules.benchmarks.files import BenchmarkFiles
from geometry.errors import InputError
from geometry.files.reading import read_text_file

# What stands in a list in place of a file that does not exist.
NO_FILE = "None"


def listed_samples(file_list: Path, files: BenchmarkFiles, num_truths: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return the path of each image in a list, and those of its ground truth, as they are among the files.

    Args:
        file_list: on each line the path of an image, those of its ground truth, and perhaps more, between blanks.
        files: the data set's files; the list may leave out the folders that all of them share.
        num_truths: how many paths of ground truth a sample needs.

    Raises:
        InputError: the list cannot be read, or a line is too short.
    """
    lines = read_text_file(file_list).split("\n")
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    before = _folder_before({fields[0] for _, fields in rows}, files)
    samples = []
    for number, (image, *truth) in rows:
        if len(truth) < num_truths:
            raise InputError(
                f"{file_list}, line {number}: behind the image {image} there must be {num_truths} "
                f"{'path' if num_truths == 1 else 'paths'} of its ground truth, between blanks, not {len(truth)}."
            )
        samples.append((before + image, tuple(path if path == NO_FILE else before + path for path in truth)))
    return samples


def _folder_before(images: set[str], files: BenchmarkFiles) -> str:
    """Return the folders that a list leaves out, from the first of its images that is there."""
    for name in files.places:
        parts = name.split("/")
        for index in range(len(parts)):
            if "/".join(parts[index:]) in images:
                return "/".join([*parts[:index], ""]) if index else ""
    return ""
