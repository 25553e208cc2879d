"""Writing files that are complete or absent: at no moment does half of one have the name."""

import os
from pathlib import Path
from uuid import uuid4


def write_whole(file: Path, content: bytes | str, is_lasting: bool = False) -> None:
    """Write a file under a temporary name of its own in the same folder, then give it its name.

    A file or a link of that name is replaced, and a link is not followed. Several processes may write the same file;
    one of them is last.

    Args:
        file: where to; its folder must exist.
        content: all that the file is to hold. Text is written as UTF-8.
        is_lasting: wait until it is on the disk, so that it has its content after a loss of power, too.

    Raises:
        OSError: it cannot be written; nothing of it is left, and what had the name before still has it.
    """
    temporary = file.with_name(f".writing-{uuid4().hex}")  # not longer for a long name, which may be as long as allowed
    try:
        with open(temporary, "xb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            if is_lasting:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
