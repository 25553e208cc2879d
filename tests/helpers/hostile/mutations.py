"""Ways to break a file that work for every format.

A generator of our own, and not hypothesis: every case runs in a process that may crash, hang or be killed, in which
hypothesis can neither measure nor shrink; and most cases are small changes of whole files, which it does not make.
"""

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

# A header is where the lies are; half of all changes go there.
_HEADER_BYTES = 512
_ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 40, (1 << 63) - 1)
_ODD_WORDS = (
    *("-1", "0", "1", "65536", "2147483648", "-9223372036854775809", "9" * 400, "1e400", "-1e308", "1e-320", "nan"),
    *(
        "inf",
        "null",
        "true",
        "''",
        "[]",
        "{}",
        "[" * 3000,
        "\x00",
        "\x1b[2J",
        "\ud7ff",
        "../../etc/passwd",
        "/dev/zero",
    ),
    *("0x10", "1_000", "٣", "${oc.env:HOME}", "!!python/object/apply:os.system ['true']", "*a", "&a [*a]"),
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, -(10**18), 1e308, float("nan"), float("inf"), 1e-320),
    *("", "x" * 5000, "\x1b[2J", "\ud800", "../../../etc/passwd", "/dev/zero", "__class__", "m"),
    *([], {}, [[]], [None], {"": None}, [0, 0], [-1, -1], [30000, 30000], ["a"] * 1000, list(range(2000))),
)

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(chance: random.Random, data: bytes) -> bytes:
    """Turn up to 16 bits."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        changed[_place(chance, data)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def lie_about_a_number(chance: random.Random, data: bytes) -> bytes:
    """Write an extreme number of 1 to 8 bytes somewhere, in either order of bytes."""
    width, at = chance.choice((1, 2, 4, 4, 8)), _place(chance, data)
    number = chance.choice(_ODD_NUMBERS) & ((1 << 8 * width) - 1)
    return data[:at] + number.to_bytes(width, chance.choice(("little", "big"))) + data[at + width :]


def lie_about_a_float(chance: random.Random, data: bytes) -> bytes:
    """Write a number that is not finite, or huge, somewhere."""
    number = chance.choice((float("nan"), float("inf"), -1e38, 1e-40))
    at = _place(chance, data)
    return data[:at] + struct.pack(chance.choice(("<f", ">f")), number) + data[at + 4 :]


def lie_in_words(chance: random.Random, data: bytes) -> bytes:
    """Replace a number or a word that is written as text."""
    words = list(re.finditer(rb"-?[0-9][0-9.e+-]*|[A-Za-z_]{2,}", data[:100_000]))
    if not words:
        return lie_about_a_number(chance, data)
    word = chance.choice(words)
    return data[: word.start()] + chance.choice(_ODD_WORDS).encode() + data[word.end() :]


def cut_off(chance: random.Random, data: bytes) -> bytes:
    """End early, perhaps before the first byte."""
    return data[: chance.choice((0, 1, _place(chance, data), chance.randrange(len(data))))]


def leave_out(chance: random.Random, data: bytes) -> bytes:
    """Leave out a part in the middle."""
    at = _place(chance, data)
    return data[:at] + data[at + chance.choice((1, 7, 64, 512, 4096)) :]


def insert(chance: random.Random, data: bytes) -> bytes:
    """Insert zeros, noise, or a part of the file itself, perhaps thousands of times."""
    at, length = _place(chance, data), chance.choice((1, 16, 512))
    part = chance.choice((bytes(length), chance.randbytes(length), data[at : at + length]))
    return data[:at] + part * chance.choice((1, 1, 2, 100, 3000)) + data[at:]


def odd_json(chance: random.Random, data: bytes) -> bytes:
    """Replace, rename or remove something in a JSON document."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return lie_in_words(chance, data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        document = _odd_document(chance, document)
    return json.dumps(document).encode(errors="surrogatepass")


def nested_json(chance: random.Random, data: bytes) -> bytes:
    """Nest something deeper than any parser should follow, or repeat a name many times."""
    depth = chance.choice((50, 1000, 100_000))
    return chance.choice(
        (
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
            b'{"options": ' + b"[" * depth + b"]" * depth + b"," + data.lstrip()[1:],
            b"[" + b"1e9," * depth + b"1]",
            b'"' + b"\\u0000" * depth + b'"',
        )
    )


ANY_FORMAT: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits, flip_bits, lie_about_a_number, lie_about_a_number, lie_about_a_number, lie_about_a_float),
    *(lie_in_words, cut_off, leave_out, insert),
)
JSON_FORMAT: tuple[Mutation, ...] = (
    odd_json,
    odd_json,
    odd_json,
    odd_json,
    nested_json,
    lie_in_words,
    *ANY_FORMAT[-5:],
)
TEXT_FORMAT: tuple[Mutation, ...] = (lie_in_words, lie_in_words, lie_in_words, flip_bits, *ANY_FORMAT[-3:])


def mutate(chance: random.Random, data: bytes, ways: Sequence[Mutation]) -> bytes:
    """Return a broken file.

    Args:
        chance: source of all random choices.
        data: whole file.
        ways: what to choose from.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(ways)(chance, data) if data else data
    return data


def _place(chance: random.Random, data: bytes) -> int:
    length = len(data) if chance.random() < 0.5 else min(len(data), _HEADER_BYTES)
    return chance.randrange(max(1, length))


def _odd_document(chance: random.Random, document: Any) -> Any:
    """Return the document with an odd value somewhere; deeper places are as likely as high ones."""
    if isinstance(document, dict) and document and chance.random() < 0.85:
        name = chance.choice(list(document))
        if chance.random() < 0.1:
            return {key: value for key, value in document.items() if key != name}
        return document | {name: _odd_document(chance, document[name])}
    if isinstance(document, list) and document and chance.random() < 0.85:
        index = chance.randrange(len(document))
        return [*document[:index], _odd_document(chance, document[index]), *document[index + 1 :]]
    return chance.choice(_ODD_VALUES)
