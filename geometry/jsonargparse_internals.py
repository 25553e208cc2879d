"""What commands use of jsonargparse and argparse without their promise to keep it.

``tests/geometry/test_jsonargparse_internals.py`` holds each part against the installed version, by what it does.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse._parameter_resolvers import get_signature_parameters


class OpenParser(ArgumentParser):
    """jsonargparse's parser; subclasses say how the text of a configuration is read."""

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Namespace:  # type: ignore[override]  # noqa: ANN401
        """Return what words say. A parser within another gets the null of a class within a class as the word None."""
        if not self.exit_on_error and args is not None and len(args) == 1 and args[0].endswith("=None"):
            args = [f"{args[0].removesuffix('None')}null"]
        return super().parse_args(args, *others, **options)

    def read_config(self, content: str, path: str | os.PathLike[str], read: Callable[[str], Namespace]) -> Namespace:
        """Return what a configuration says.

        Args:
            content: its text.
            path: file that it comes from; empty for words of the command line.
            read: jsonargparse's own reading of a text.
        """
        return read(content)

    def _load_config_parser_mode(
        self,
        content: str,
        path: str | os.PathLike[str] = "",
        ext_vars: dict[str, Any] | None = None,
        prev_cfg: Namespace | None = None,
    ) -> Namespace:
        read = partial(super()._load_config_parser_mode, path=path, ext_vars=ext_vars, prev_cfg=prev_cfg)
        return self.read_config(content, path, read)


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options of a parser, with their help."""
    return list(parser._actions)


def parameters_of(kind: Any) -> list[tuple[str, Any, Any]]:  # noqa: ANN401
    """Return name, type and default of what a class can be given, by its base classes too if it hands all on."""
    return [(found.name, found.annotation, found.default) for found in get_signature_parameters(kind, None)]


def groups_of(parser: argparse.ArgumentParser) -> list[tuple[Any, Sequence[argparse.Action]]]:
    """Return the groups of options in a parser's help, which have a title, each with its options."""
    return [(group, group._group_actions) for group in parser._action_groups]
