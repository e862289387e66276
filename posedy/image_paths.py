"""Files of images among the arguments of a command: files, folders and glob patterns."""

import glob
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from posedy.urls import has_scheme

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2"),
)
_UNREADABLE_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".psd", ".svg", ".ico", ".exr", ".hdr", ".pfm"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
_MAX_EXAMPLES = 3
_logger = logging.getLogger("posedy")


def image_paths(arguments: Sequence[str]) -> list[Path]:
    """Expands command line arguments to image files, in their order and without duplicates.

    An argument is a file, a folder (its image files by suffix, sorted by name, without subfolders) or a glob pattern
    (** also matches subfolders). A log message names the files of a folder or a pattern that are left out although they
    are images in formats that OpenCV cannot read, or videos.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if an argument is empty, is a URL or matches no image file.
    """
    check_no_urls(arguments)
    images: dict[Path, Path] = {}
    for argument in arguments:
        if not argument:  # Path("") is the current folder
            raise ValueError("empty argument: expected an image, folder or pattern; '.' is the current folder")
        path = Path(argument)
        try:
            candidates = _find_files(path)
        except OSError as error:
            raise type(error)(
                f"{argument} cannot be read ({error.strerror}): check its name and permissions"
            ) from error
        is_file = path.is_file()
        matches = candidates if is_file else [file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES]
        left_out = "" if is_file else _describe_left_out(candidates)
        if not matches:
            if path.is_dir():
                message = f"no image in folder {argument} (expected {', '.join(IMAGE_SUFFIXES)})"
            elif glob.has_magic(argument):
                message = f"no image matches {argument}"
            else:
                message = f"no image or folder at {path.absolute()}"
            raise ValueError(f"{message}; {left_out}" if left_out else message)
        if left_out:
            _logger.warning("%s: %s", argument, left_out)
        for match in matches:
            images.setdefault(match.resolve(), match)
    return list(images.values())


def check_no_urls(arguments: Iterable[str]) -> None:
    """Checks that command line arguments are no URLs.

    Raises:
        ValueError: if one is a URL.
    """
    for argument in arguments:
        if has_scheme(argument):
            raise ValueError(
                f"expected a file, a folder or a pattern, got the URL {argument}, which this command cannot read: "
                "download the file. In Python, PoseEstimator reads images from http and https URLs, and "
                "PoseEstimator.track takes the frames of a stream"
            )


def _find_files(path: Path) -> list[Path]:
    """Returns the files of a path: itself, those of a folder, or those that match a glob pattern, sorted."""
    if path.is_file():
        return [path]
    found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
    return sorted(file for file in found if file.is_file())


def _describe_left_out(files: Iterable[Path]) -> str:
    """Describes the images and videos among files that are left out; "" if there are none."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        if file.suffix.lower() in _UNREADABLE_SUFFIXES:
            kinds.setdefault("in formats that OpenCV cannot read; convert them to JPEG or PNG", []).append(file.name)
        elif file.suffix.lower() in VIDEO_SUFFIXES:
            kinds.setdefault("videos or animations, which are given by their own names", []).append(file.name)
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - _MAX_EXAMPLES} more" if len(names) > _MAX_EXAMPLES else ""
        parts.append(f"{', '.join(names[:_MAX_EXAMPLES])}{more} ({kind})")
    return f"left out: {'; '.join(parts)}" if parts else ""
