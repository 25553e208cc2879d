"""A zip file's directory is no larger than it may be, wherever one is read."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest

from datamodules.benchmarks.files import open_files
from datamodules.sources.array_files import read_array_file
from datamodules.sources.hypersim_files import HypersimFiles
from geometry.errors import InputError
from geometry.files.limits import MAX_ZIP_DIRECTORY_BYTES
from geometry.files.zip_archives import open_zip, read_zip_member
from lightning_modules.training.checkpoint_content import peek_checkpoint
from lightning_modules.training.checkpoint_files import damage

CLAIMED = MAX_ZIP_DIRECTORY_BYTES + 1


def lying(path):
    """Write a file with a hole of 16 MiB, all of which its end calls a directory."""
    with open(path, "wb") as file:
        file.truncate(CLAIMED)
        file.seek(CLAIMED)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, CLAIMED, 0, 0))
    return path


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("benchmark.zip", open_files),
        ("last.ckpt", peek_checkpoint),
        ("depth.npz", lambda path: read_array_file(path, 1)),
        ("ai_001_001.zip", lambda path: HypersimFiles(path.parent).find("depth_meters")),
    ],
)
def test_a_directory_that_is_too_large_is_not_read(tmp_path, name, read):
    with pytest.raises(InputError, match=rf"{name}.*directory has 16 MiB; more than 16 MiB are refused"):
        read(lying(tmp_path / name))


def test_a_checkpoint_with_such_a_directory_counts_as_damaged(tmp_path):
    assert "directory has 16 MiB" in str(damage(lying(tmp_path / "last.ckpt")))


def test_members_of_any_size_are_read_and_a_path_is_closed(tmp_path):
    content = bytes(MAX_ZIP_DIRECTORY_BYTES + 5)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("large", content)
        archive.comment = b"said at the end"
    with open_zip(tmp_path / "a.zip") as archive:
        stream = archive.fp
        assert read_zip_member(archive, "large", len(content)) == content
        assert archive.comment == b"said at the end"
    assert stream.closed
    data = io.BytesIO((tmp_path / "a.zip").read_bytes())
    with open_zip(data) as archive:
        assert archive.namelist() == ["large"]
    assert not data.closed


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(InputError, match="no regular file"):
        open_zip(tmp_path / "a.zip")


def test_an_npz_of_a_user_is_read_as_before(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", depth=np.full((2, 3), 7, np.float32))
    assert read_array_file(tmp_path / "a.npz", 1).tolist() == [[7.0] * 3] * 2
