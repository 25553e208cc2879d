import pytest

from geometry.errors import one_line, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2Jred.jpg", r"a\x1b[2Jred.jpg"),  # clears the screen
        ("c\x1b]0;title\x07.jpg", r"c\x1b]0;title\x07.jpg"),  # names the window
        ("b\nfailed: innocent.jpg", r"b\nfailed: innocent.jpg"),  # makes a line of its own
        ("a\rerror", r"a\rerror"),
        ("x\x9b31m\x7f", r"x\x9b31m\x7f"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),  # turns the direction of writing
        ("a\u2028b", r"a\u2028b"),
        ("bytes \udcff that are no text", r"bytes \udcff that are no text"),
        ("plain ünï 日本語 {x}.png", "plain ünï 日本語 {x}.png"),
    ],
)
def test_a_name_can_neither_command_the_terminal_nor_forge_a_line(name, shown):
    assert printable(name) == shown
    assert printable(name).encode("utf-8")


def test_a_librarys_message_becomes_one_line_cut_between_words():
    error = ValueError("first\n   second\tthird ")
    assert one_line(error) == "first second third"
    assert one_line(error, 14) == "first second ..."
    assert one_line("x" * 20, 10) == "x" * 10 + " ..."
