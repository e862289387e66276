"""Error messages of the command line: one line, and the location in the code for an unexpected error."""

import dis
import re
from dataclasses import dataclass
from pathlib import Path

from posedy.remedies import find_remedy

_PACKAGE = Path(__file__).parents[1]
_RAISE = dis.opmap["RAISE_VARARGS"]
# Errors of worker processes: "Original Traceback" is torch's DataLoader, the class names are those of multiprocessing
# and concurrent.futures.
_LOADER_MARK, _POOL_CAUSES = "Original Traceback", ("RemoteTraceback", "_RemoteTraceback")
_FRAME_LINES = re.compile(r'^ *File "(.+)", line (\d+), in (.+)$(?:\n(?! *File ") *(.*))?', re.MULTILINE)


def describe_error(error: Exception, debug: bool = False) -> str:
    """Returns the message that the command line prints for an error.

    An error is expected if a `raise` statement of posedy raised it, or if it is an OSError that names a file (or comes
    from a worker process): its message is complete and is returned alone. For every other error, such as one that
    numpy raises, the message is its remedy, or its type, its first line, and on a second line the innermost location
    in posedy.

    Args:
        error: an exception with its traceback.
        debug: whether the traceback has been printed; the hint to run again with --debug is then omitted.
    """
    text = str(error)
    lines = text.strip().splitlines()
    frames = _frames_of_process(error) + _frames_of_worker(error)
    from_loader = _LOADER_MARK in text
    if _is_expected(error, frames):
        return lines[-1].partition(": ")[2] if from_loader else text
    if remedy := find_remedy(error):
        return remedy
    first = lines[-1] if from_loader else ": ".join([type(error).__name__, *lines[:1]])
    innermost = next((frame for frame in reversed(frames) if frame.is_in_package), None)
    if innermost is None:
        return first
    file = Path(innermost.file).relative_to(_PACKAGE.parent).as_posix()
    hint = "" if debug else "; run again with --debug for the traceback"
    return f"{first}\n  in {file}:{innermost.line}, function {innermost.function}{hint}"


@dataclass(frozen=True)
class _Frame:
    """A frame of a traceback; `raises` is true at a `raise` statement."""

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
    # assert statements compile to RAISE_VARARGS too
    return bool(frames) and frames[-1].is_in_package and frames[-1].raises and not isinstance(error, AssertionError)


def _frames_of_process(error: Exception) -> list[_Frame]:
    """Returns the frames of an error's traceback, the innermost last."""
    frames, entry = [], error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        raises = code.co_code[entry.tb_lasti] == _RAISE
        frames.append(_Frame(code.co_filename, entry.tb_lineno, code.co_name, raises))
        entry = entry.tb_next
    return frames


def _frames_of_worker(error: Exception) -> list[_Frame]:
    """Parses the frames of a worker process from its traceback's text; none for errors of this process."""
    return [
        _Frame(file, int(line), function, source.startswith("raise "))
        for file, line, function, source in _FRAME_LINES.findall(_worker_traceback(error))
    ]


def _worker_traceback(error: Exception) -> str:
    """Returns the traceback text of a worker process's error; "" for errors of this process."""
    if _LOADER_MARK in str(error):
        return str(error)
    return str(error.__cause__) if type(error.__cause__).__name__ in _POOL_CAUSES else ""
