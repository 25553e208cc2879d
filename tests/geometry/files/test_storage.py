import errno

import pytest

from geometry.files.storage import storage_problem


def raised_from(cause):
    try:
        try:
            raise cause
        except type(cause) as error:
            raise RuntimeError("the library gave up") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), "No space left on device: a.bin"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (RuntimeError('I/O error: "No space left on device (os error 28)"'), "No space left on device"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"), "a file could not be written"),
        (raised_from(OSError(errno.EFBIG, "File too large")), "File too large"),
    ],
)
def test_a_full_disk_is_recognised_whichever_library_met_it(error, words):
    assert storage_problem(error) == words


@pytest.mark.parametrize("error", [KeyError("no space"), OSError(errno.ENOENT, "missing"), RuntimeError("os error 2")])
def test_a_bug_is_no_full_disk(error):
    assert storage_problem(error) is None
