"""Pages are read in editors and in diffs, too: their lines are short, and their tables whole."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 100
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[!.]*/*.md")})


def outside_of_code(text):
    """Lines that are not part of a block of code."""
    is_code = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield line


def long_lines(text):
    """Lines of prose above the limit; tables, code, and links and code within a line cannot be broken."""
    for line in outside_of_code(text):
        if not line.lstrip().startswith("|") and not line.startswith("    "):
            kept = re.sub(r"\]\([^)]*\)|`[^`]*`", "", line)
            if len(kept) > LONGEST:
                yield line


def broken_rows(text):
    """Rows of tables with more or fewer cells than the row above them."""
    cells_above = None
    for line in outside_of_code(text):
        cells = re.sub(r"`[^`]*`|\\\|", "", line).count("|") if line.startswith("|") else None
        if cells is not None and cells_above not in (None, cells):
            yield line
        cells_above = cells


def test_lines_of_prose_are_short_and_rows_of_tables_have_the_cells_of_their_heads():
    assert len(PAGES) > 15
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not [*long_lines(text), *broken_rows(text)], page.name


def test_a_long_line_and_a_broken_table_are_noticed():
    text = f"{'a ' * 60}\n```\n{'b ' * 60}\n```\n| {'c ' * 60} |\n[x]({'y' * 120})\n"
    assert list(long_lines(text)) == ["a " * 60]
    assert list(broken_rows("| a | b |\n| -- | -- |\n| `x|y` | 1 |\n| 1 |\n")) == ["| 1 |"]


def test_pages_are_as_mdformat_writes_them():
    command = [sys.executable, "-m", "mdformat", "--check", *PAGES]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr + "\npython -m mdformat writes them anew."
