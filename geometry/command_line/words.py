"""The words of a command line, in the one spelling that the parser of a command takes."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping

_TRUE, _FALSE = ("true", "yes"), ("false", "no")


def with_underscores(word: str) -> str:
    """Return a word in which an option's name has underscores; ``--ckpt-path=a-b`` is ``--ckpt_path=a-b``.

    Args:
        word: an option, perhaps with its value, or anything else. Dots separate keys of a configuration, which may have
            dashes.
    """
    name, joined, value = word.partition("=")
    if not re.fullmatch(r"--\w[\w-]*", name):
        return word
    return "--" + name[2:].replace("-", "_") + joined + value


def arrange(
    words: Iterable[str], num_words: Mapping[str, int | str], also: Mapping[str, str], positional: str | None
) -> list[str]:
    """Return a command line in which every value follows the name of its option, in one spelling.

    Convention:
        Values without a name are those of the positional option. A list may be given in several parts. ``--flag=false``
        is ``--no_flag``.

    Args:
        words: the command line.
        num_words: how many words the value of an option has.
        also: other names of options.
        positional: the option whose name may be left out.
    """
    found: list[tuple[str, list[str]]] = []
    lists: dict[str, list[str]] = {}
    unnamed: list[str] = []
    left = [with_underscores(word) for word in words][::-1]
    while left:
        word = left.pop()
        name, is_joined, value = word.partition("=")
        name = also.get(name, name)
        if not word.startswith("--"):
            unnamed.append(word)
            continue
        if name not in num_words:  # the parser's own, or none at all
            found.append((name + is_joined + value, []))
            continue
        count = num_words[name]
        values = [value] if is_joined else []
        if count == 0 and is_joined and value.lower() in (*_TRUE, *_FALSE):
            name, values, is_joined = (name if value.lower() in _TRUE else f"--no_{name[2:]}"), [], ""
        most = math.inf if isinstance(count, str) else count
        while left and not is_joined and not left[-1].startswith("--") and len(values) < most:
            values.append(left.pop())
        if isinstance(count, str):
            if name in lists:
                lists[name] += values
                continue
            lists[name] = values
        found.append((name, values))
    if unnamed and positional:
        named = lists.get(f"--{positional}")
        found.insert(0, (f"--{positional}", unnamed)) if named is None else named.extend(unnamed)
        unnamed = []
    # A single value is joined, whatever it begins with.
    spelled = [[f"{name}={values[0]}"] if len(values) == 1 else [name, *values] for name, values in found]
    return [*itertools.chain(*spelled), *unnamed]
