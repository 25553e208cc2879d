"""Pages of the site that lie elsewhere in the repository or show the configurations, and links between all pages."""

import posixpath
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Files of the repository, and the pages that they become.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "results.md",
    "checkpoints/README.md": "toy_base.md",
}
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/.

    Args:
        files: those of docs/; changed in place.
        config: of the site.
    """
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "recipes.md", content=recipes()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 - what mkdocs passes beside
    """Let links lead to pages; what is no page keeps its words and loses its link.

    Args:
        markdown: text of a page.
        page: the page.
    """
    here = page.file.src_uri
    source = _SOURCES.get(here, f"docs/{here}")
    return _LINK.sub(lambda link: _relinked(link, source, here), markdown)


def _relinked(link: re.Match[str], source: str, here: str) -> str:
    """Return a link of a file of the repository as one between pages.

    Args:
        link: as it stands in the file.
        source: path of the file in the repository.
        here: path of its page.
    """
    mark, text, target = link.groups()
    path, hash_mark, anchor = target.partition("#")
    if not path or ":" in path:
        return link[0]
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = PAGES.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
    if page is None:
        if not (ROOT / place).exists():
            return link[0]  # mkdocs warns of it
        return text
    return f"{mark}[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{hash_mark}{anchor})"


def recipes() -> str:
    """Return the page of all shipped configurations: what each says of itself, and all of it."""
    parts = [
        "# Recipes",
        "A configuration holds what differs from the defaults. The name is enough: `--config demo`; a file of that "
        "path in the working folder comes before the shipped one. Several are laid over one another, so that a recipe "
        "and one for the hardware make a run. [Training](training.md) explains the options.",
    ]
    titles = {"": "## By task and base", "hardware/": "## By hardware"}
    for folder, title in titles.items():
        parts.append(title)
        parts += [_recipe(file, folder) for file in sorted((ROOT / "configs" / folder).glob("*.yaml"))]
    return "\n\n".join(parts) + "\n"


def _recipe(file: Path, folder: str) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = list(takewhile(lambda line: line.startswith("#"), lines))
    command, *said = [line.removeprefix("#").strip() for line in comments]
    body = "\n".join(f"    {line}" for line in lines[len(comments) :])
    return (
        f"### {folder}{file.stem}\n\n```bash\n{command}\n```\n\n{' '.join(said)}\n\n"
        f'??? note "configs/{folder}{file.name}"\n\n    ```yaml\n{body}\n    ```'
    )
