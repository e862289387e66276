"""Which photos the words of a command line mean."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def photo_paths(arguments: Sequence[str]) -> list[Path]:
    """The photos that arguments mean, each once, in their order.

    A file is itself. A folder is the photos directly in it, by suffix and sorted by name. Anything else is a pattern,
    where ** also goes down into folders.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if an argument is empty or means no photo.
    """
    photos: dict[Path, Path] = {}
    for argument in arguments:
        if not argument:  # a path would take it for the current folder
            raise ValueError("a word for photos is empty: give a photo, folder or pattern; '.' is the current folder")
        path = Path(argument)
        try:
            found = _photos_of(path)
        except OSError as error:
            raise type(error)(
                f"{argument} cannot be looked into ({error.strerror}): check its name and permissions"
            ) from error
        if not found:
            if path.is_dir():
                what = f"folder {argument} has no photo directly in it (looked for {', '.join(PHOTO_SUFFIXES)})"
            elif glob.has_magic(argument):
                what = f"no photo matches {argument}"
            else:
                what = f"no photo or folder at {path.absolute()}"
            raise ValueError(what)
        for photo in found:
            photos.setdefault(photo.resolve(), photo)
    return list(photos.values())


def _photos_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return _only_photos(path.iterdir())
    return _only_photos(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207


def _only_photos(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
