"""The notebook runs from its first cell to its last, in a folder of its own, on less data."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "demo.ipynb"
SHORT = "STEPS = 5\nROOMS = 20"


@pytest.mark.slow
def test_the_notebook_trains_predicts_and_exports_the_demo(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "STEPS = 600" in code[0].source and "ROOMS = 600" in code[0].source
    code[0].source = SHORT
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert list(tmp_path.glob("runs/demo/version_0/checkpoints/last.ckpt"))
    printed = "".join(output.get("text", "") for output in code[-1].outputs)
    assert float(printed.rsplit(":", 1)[1]) < 1e-4
    pictures = [output for output in code[3].outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2


def test_the_notebook_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
