"""Messages about the error that ends a command: one line, and the location in the code of an unexpected error."""

import dis
import re
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_RAISE = dis.opmap["RAISE_VARARGS"]
# "Original Traceback" is torch's data loader, the classes are those of multiprocessing and concurrent.futures.
_LOADER_MARK, _POOL_CAUSES = "Original Traceback", ("RemoteTraceback", "_RemoteTraceback")
_FRAME_LINES = re.compile(r'^ *File "(.+)", line (\d+), in (.+)$(?:\n(?! *File ") *(.*))?', re.MULTILINE)


def describe_error(error: Exception, debug: bool = False) -> str:
    """What the command line prints about an error.

    An error is expected if a `raise` statement of posedy raised it, or if it is an OSError that names a file (or comes
    from a worker process): its message says what to do, and is returned alone. Every other error, such as one that
    numpy raises, gets its type, the first line of its message, and on a second line the innermost location in posedy.

    Args:
        error: an exception with its traceback.
        debug: whether the traceback is shown already, so that no line says how to get it.
    """
    text = str(error)
    lines = text.strip().splitlines()
    frames = _frames_of_process(error) + _frames_of_worker(error)
    from_loader = _LOADER_MARK in text
    if _is_expected(error, frames):
        return lines[-1].partition(": ")[2] if from_loader else text
    first = lines[-1] if from_loader else ": ".join([type(error).__name__, *lines[:1]])
    place = next((frame for frame in reversed(frames) if frame.is_in_package), None)
    if place is None:
        return first
    file = Path(place.file).relative_to(_PACKAGE.parent).as_posix()
    hint = "" if debug else "; run again with --debug for the traceback"
    return f"{first}\n  in {file}:{place.line}, function {place.function}{hint}"


@dataclass(frozen=True)
class _Frame:
    """A frame of a traceback; `raises` tells whether it is at a `raise` statement."""

    file: str
    line: int
    function: str
    raises: bool

    @property
    def is_in_package(self) -> bool:
        return Path(self.file).is_relative_to(_PACKAGE)


def _is_expected(error: Exception, frames: list[_Frame]) -> bool:
    if isinstance(error, OSError) and (error.filename is not None or _worker_traceback(error)):
        return True
    # an assert statement raises too
    return bool(frames) and frames[-1].is_in_package and frames[-1].raises and not isinstance(error, AssertionError)


def _frames_of_process(error: Exception) -> list[_Frame]:
    """The frames of an error's traceback, the innermost one last."""
    frames, entry = [], error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        raises = code.co_code[entry.tb_lasti] == _RAISE
        frames.append(_Frame(code.co_filename, entry.tb_lineno, code.co_name, raises))
        entry = entry.tb_next
    return frames


def _frames_of_worker(error: Exception) -> list[_Frame]:
    """The frames that the error had in a worker process, which are only known as text; none for other errors."""
    return [
        _Frame(file, int(line), function, source.startswith("raise "))
        for file, line, function, source in _FRAME_LINES.findall(_worker_traceback(error))
    ]


def _worker_traceback(error: Exception) -> str:
    """The traceback that a worker process sent with its error; "" for errors of this process."""
    if _LOADER_MARK in str(error):
        return str(error)
    return str(error.__cause__) if type(error.__cause__).__name__ in _POOL_CAUSES else ""
