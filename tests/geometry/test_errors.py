import pytest
import torch

from geometry.errors import InputError, is_lack_of_memory, one_line, printable


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


@pytest.mark.parametrize(
    ("error", "is_lack"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError("Unable to allocate 3.1 TiB for an array with shape (1000000, 854000)"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (InputError("photo.png: a file of 3 bytes is out of memory's reach"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, is_lack):
    assert is_lack_of_memory(error) is is_lack


def test_what_pytorch_says_on_a_cpu_is_a_lack_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert is_lack_of_memory(caught.value)
