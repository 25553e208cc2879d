"""Which inputs of ``onestep predict`` are videos, and what becomes of several."""

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from geometry.errors import InputError, printable
from geometry.files.locks import sole_use
from geometry.files.paths import given_path
from lightning_modules.inference.video.reading import VIDEO_SUFFIXES
from lightning_modules.inference.video.run import VideoRun


def split_clips(inputs: Sequence[str], takes_folders: bool) -> tuple[list[Path], list[str]]:
    """Return the videos among inputs, and the other inputs.

    Args:
        inputs: files, folders and patterns.
        takes_folders: folders are the frames of a video each; then every input must be a video.

    Raises:
        InputError: one is not, or two videos would have results of the same name.
    """
    clips: dict[Path, None] = {}
    others = []
    for name in inputs:
        path = given_path(name, "the image")
        if Path(name).suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
            found = (
                [path]
                if os.path.lexists(path)
                else [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
            )
            if not found:
                raise InputError(f"{name}: there is no such file, and no file matches.")
            clips |= dict.fromkeys(found)
        elif takes_folders and path.is_dir():
            clips[path] = None
        elif takes_folders:
            raise InputError(f"{name}: --video takes folders of frames and video files, and this is neither.")
        else:
            others.append(name)
    stems: dict[str, Path] = {}
    for clip in clips:
        other = stems.setdefault((clip.resolve().name if clip.is_dir() else clip.stem).casefold(), clip)
        if other is not clip:
            raise InputError(f"{other} and {clip} would have results of the same name; predict them into two folders.")
    return list(clips), others


def predict_clips(clips: Sequence[Path], run: VideoRun, is_quiet: bool) -> int:
    """Predict videos, say what became of each, and return how many could not be.

    Args:
        clips: the videos.
        run: predicts one.
        is_quiet: show no progress.
    """
    num_failed = 0
    for clip in clips:
        try:
            with sole_use(run.output):
                summary = run.predict(clip, show_progress=not is_quiet)
        except InputError as error:
            reason = str(error) if str(clip) in str(error) else f"{clip}: {error}"
            print(f"failed: {printable(reason)}", file=sys.stderr)
            num_failed += 1
            continue
        said = (
            "its results were there already (--overwrite predicts it again)" if summary is None else summary.sentence()
        )
        print(printable(f"{clip}: {said}"))
    return num_failed
