"""Which files of a folder are somebody's, and which a system has put beside them."""

from pathlib import PurePath

# Archives and bins of macOS, previews of Synology and of desktops, bins of Windows and Linux.
_JUNK_NAMES = frozenset(
    "__macosx .trashes .spotlight-v100 .fseventsd .temporaryitems .ds_store @eadir #recycle $recycle.bin recycler "
    "thumbs.db desktop.ini .thumbnails lost+found".split()
) | {"system volume information"}
_JUNK_BEGINNINGS = ("._", ".trash-")


def is_junk(path: str | PurePath) -> bool:
    """Whether a file or folder is to be passed over because a system, not a person, has made it.

    Among them are the companions that macOS writes on disks of others (``._photo.jpg``), ``__MACOSX``, ``@eaDir`` and
    ``Thumbs.db``. Other hidden files are not.

    Args:
        path: path below the folder that is searched.
    """
    names = (part.casefold() for part in PurePath(path).parts)
    return any(name in _JUNK_NAMES or name.startswith(_JUNK_BEGINNINGS) for name in names)
