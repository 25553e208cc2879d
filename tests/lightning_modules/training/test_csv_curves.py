"""metrics.csv of a run that goes on is read like any file from elsewhere."""

import os
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger

from geometry.errors import InputError
from lightning_modules.training import csv_curves
from lightning_modules.training.csv_curves import CsvCurves


def going_on(folder, content, rows=None):
    """Return the curves of a run that goes on with a metrics.csv, up to the moment before its first step."""
    logger = CSVLogger(folder, name="", version="")
    (folder / "metrics.csv").write_bytes(content)
    curves = CsvCurves(goes_on=True)
    curves.put_aside([logger])
    curves.load_state_dict({} if rows is None else {"rows": rows})
    curves.on_fit_start(SimpleNamespace(global_step=5), None)
    return (folder / "metrics.csv").read_text()


def test_the_rows_that_the_checkpoint_counted_are_there_again(tmp_path):
    content = b"loss,step\n0.5,1\n,2\n0.25,3\n0.125,9\n"
    assert going_on(tmp_path, content, [3]).split() == ["loss,step", "0.5,1", ",2", "0.25,3"]


def test_without_a_count_rows_from_later_steps_are_left_out(tmp_path):
    assert going_on(tmp_path, b"loss,step\n0.5,1\n0.125,9\n", [-1, "x"]).split() == ["loss,step", "0.5,1"]


@pytest.mark.parametrize(
    "content",
    [b"loss,step\n1,x\n", b"loss,step\n1,inf\n", b"loss,step\n\xff,1\n", b"step\n1,2,3\n", b'"' + b"x" * 200_000],
    ids=["word", "infinite", "bytes", "columns", "endless"],
)
def test_a_table_of_another_kind_is_named(tmp_path, content):
    with pytest.raises(InputError, match=r"metrics\.csv cannot be read .* Move it away"):
        going_on(tmp_path, content, [9])


def test_a_pipe_is_not_waited_for_and_a_large_file_not_read(tmp_path, monkeypatch):
    curves = csv_curves._rows
    os.mkfifo(tmp_path / "metrics.csv")
    with pytest.raises(InputError, match="no regular file"):
        next(curves(tmp_path / "metrics.csv"))
    with open(tmp_path / "large.csv", "wb") as file:
        file.truncate(csv_curves.MAX_CURVES_BYTES + 1)
    with pytest.raises(InputError, match="more than 256 MiB are refused"):
        next(curves(tmp_path / "large.csv"))
