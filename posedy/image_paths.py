"""Files of images and videos among the arguments of a command: files, folders and glob patterns."""

import glob
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from posedy.urls import has_scheme

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".vob", ".mxf"),
    *(".h264", ".264", ".h265", ".265", ".hevc"),
)
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2"),
)
_UNREADABLE_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".psd", ".svg", ".ico", ".exr", ".hdr", ".pfm"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
_STREAM_SUFFIXES = (*VIDEO_SUFFIXES, ".m3u8", ".mpd")
_MAX_EXAMPLES = 3
_logger = logging.getLogger("posedy")


def split_inputs(
    arguments: Sequence[str], can_read_video: Callable[[Path], bool], expand_videos: bool = True
) -> tuple[list[str], list[Path | str]]:
    """Splits command line arguments into those with images, for `image_paths`, and videos.

    Args:
        arguments: files, folders, glob patterns and URLs. A file is a video if its suffix is one of `VIDEO_SUFFIXES`,
            or if it is no image and can be read as a video; a URL, if its scheme is rtsp or its path has the suffix of
            a video.
        can_read_video: returns whether a file can be read as a video.
        expand_videos: whether folders and glob patterns also give videos, those with such a suffix.

    Returns:
        The arguments with images, and the files and URLs of videos without duplicates.

    Raises:
        OSError: if a folder cannot be read.
    """
    images: list[str] = []
    videos: dict[Path | str, Path | str] = {}
    for argument in arguments:
        path = Path(argument)
        if has_scheme(argument):
            if _is_video_url(argument):
                videos[argument] = argument
            else:
                images.append(argument)
        elif path.is_dir() or (glob.has_magic(argument) and not path.exists()):
            files = _find_candidates(argument)
            found = [file for file in files if expand_videos and _has_video_suffix(file)]
            videos.update((file.resolve(), file) for file in found)
            if not found or any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
                images.append(argument)
        elif _has_video_suffix(path) or _is_video_by_content(path, can_read_video):
            videos[path.resolve()] = path
        else:
            images.append(argument)
    return images, list(videos.values())


def image_paths(arguments: Sequence[str], name_videos: bool = True) -> list[Path]:
    """Expands command line arguments to image files, in their order and without duplicates.

    An argument is a file, a folder (its image files by suffix, sorted by name, without subfolders) or a glob pattern
    (** also matches subfolders). A log message names the files of a folder or a pattern that are left out although they
    are images in formats that OpenCV cannot read, or videos.

    Args:
        arguments: the arguments.
        name_videos: whether the log message names videos.

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
        candidates = _find_candidates(argument)
        is_file = path.is_file()
        matches = candidates if is_file else [file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES]
        left_out = "" if is_file else _describe_left_out(candidates, name_videos)
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


def _find_candidates(argument: str) -> list[Path]:
    """Returns the files of an argument: itself, those of a folder, or those that match a glob pattern, sorted.

    Hidden files of a folder are left out.

    Raises:
        OSError: if a folder cannot be read.
    """
    path = Path(argument)
    try:
        if path.is_file():
            return [path]
        if path.is_dir():
            # such as ._NAME of macOS; patterns match no hidden files, either, unless they begin with a dot
            found = [file for file in path.iterdir() if not file.name.startswith(".")]
        else:
            found = list(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        return sorted(file for file in found if file.is_file())
    except OSError as error:
        raise type(error)(f"{argument} cannot be read ({error.strerror}): check its name and permissions") from error


def _has_video_suffix(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_video_url(url: str) -> bool:
    parts = urlsplit(url)
    is_file = parts.scheme in ("http", "https") and parts.path.lower().endswith(_STREAM_SUFFIXES)
    return is_file or parts.scheme in ("rtsp", "rtsps")


def _is_video_by_content(path: Path, can_read_video: Callable[[Path], bool]) -> bool:
    """Returns whether a file without the suffix of a video is one."""
    if not path.is_file() or path.suffix.lower() in (*IMAGE_SUFFIXES, *_UNREADABLE_SUFFIXES):
        return False
    try:
        str(path).encode()  # OpenCV crashes for other paths
        is_image = cv2.haveImageReader(str(path))
    except (cv2.error, UnicodeEncodeError):
        is_image = False
    return not is_image and can_read_video(path)


def _describe_left_out(files: Iterable[Path], name_videos: bool) -> str:
    """Describes the images and videos among files that are left out; "" if there are none."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        if file.suffix.lower() in _UNREADABLE_SUFFIXES:
            kinds.setdefault("in formats that OpenCV cannot read; convert them to JPEG or PNG", []).append(file.name)
        elif name_videos and _has_video_suffix(file):
            kinds.setdefault("videos or animations, which are given by their own names", []).append(file.name)
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - _MAX_EXAMPLES} more" if len(names) > _MAX_EXAMPLES else ""
        parts.append(f"{', '.join(names[:_MAX_EXAMPLES])}{more} ({kind})")
    return f"left out: {'; '.join(parts)}" if parts else ""
