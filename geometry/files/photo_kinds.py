"""Kinds of photos that are no images to programs, and what to do about them."""

from importlib.util import find_spec
from pathlib import PurePath

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
# Data of a sensor, which a program must develop first. Some are TIFF files outside, whose first image is a preview.
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"),
    *(".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"),
)


def can_read_heif() -> bool:
    """Return whether the package that reads HEIC photos is installed."""
    return find_spec("pillow_heif") is not None


def why_unreadable(name: object) -> str:
    """Return why a photo cannot be read and what to do, judged by its name; nothing if it may be readable.

    Args:
        name: path or name of a file.
    """
    suffix = PurePath(str(name)).suffix.lower()
    if suffix in RAW_SUFFIXES:
        return "is a RAW photo, which has to be developed first: export it as JPEG or TIFF"
    if suffix in HEIF_SUFFIXES and not can_read_heif():
        return "is a HEIC photo, which needs the package pillow-heif: pip install -e '.[heif]'"
    return ""


def is_photo(name: object) -> bool:
    """Return whether a file is, by its name, a photo of a kind that is not always readable."""
    return PurePath(str(name)).suffix.lower() in (*HEIF_SUFFIXES, *RAW_SUFFIXES)


def describe_unreadable(names: list[str]) -> str:
    """Return a sentence that counts and names photos which are not read; nothing if there are none.

    Args:
        names: names of the files.
    """
    unread = [name for name in names if why_unreadable(name)]
    if not unread:
        return ""
    shown = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
    return f"Not read: {len(unread)} HEIC or RAW photo(s) ({shown}); {unread[0]} {why_unreadable(unread[0])}."
