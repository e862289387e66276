"""The list of inputs on disk, its units, and the manifest that makes sure that a resumed run has the same ones."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from posedy.files import file_digest, named_write_errors, read_bytes, write_json_atomically
from posedy.inference.bulk.sources import ImageSource
from posedy.urls import has_scheme

INPUTS_FILE, MANIFEST_FILE = "inputs.jsonl", "manifest.json"
ERRORS_FILE, ERRORS_FOLDER = "errors.jsonl", "errors"
_SMALLEST_UNIT = 64
_MAX_UNITS = 10_000  # files in one folder
_LINES_AT_A_TIME = 1000


def unit_size(num_images: int) -> int:
    """Returns the number of images of a unit of bulk prediction: 64, doubled until there are at most 10,000 units."""
    size = _SMALLEST_UNIT
    while num_images > _MAX_UNITS * size:
        size *= 2
    return size


class InputList:
    """The inputs of a run, read from its file unit by unit: memory does not depend on their number.

    Args:
        path: a file with an `ImageSource` in each line.

    Attributes:
        num_images: number of inputs.
        unit_size: number of inputs of a unit; the last one may have fewer.
    """

    def __init__(self, path: Path, num_images: int) -> None:
        self._path = path
        self.num_images = num_images
        self.unit_size = unit_size(num_images)
        self._offsets: list[int] = []
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file):
                if number % self.unit_size == 0:
                    self._offsets.append(offset)
                offset += len(line)

    @property
    def num_units(self) -> int:
        """Number of units into which the images are divided."""
        return len(self._offsets)

    def images_in(self, unit: int) -> int:
        """Returns the number of images of a unit."""
        return min(self.unit_size, self.num_images - unit * self.unit_size)

    def read_unit(self, unit: int) -> list[ImageSource]:
        """Returns where each image of a unit is stored."""
        with self._path.open("rb") as file:
            file.seek(self._offsets[unit])
            return [ImageSource.from_line(file.readline()) for _ in range(self.images_in(unit))]


def prepare_inputs(out: Path, sources: Iterable[ImageSource], settings: Mapping[str, Any]) -> InputList:
    """Writes the list of inputs and the manifest of a new run, or checks that those of a begun one are the same.

    Processes that begin at the same time write the same files.

    Args:
        out: the folder of the results.
        sources: the inputs, in their order.
        settings: what determines the results besides the inputs.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if there are no inputs, or a begun run has other inputs or settings.
    """
    with named_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    listed = out / f".inputs-{secrets.token_hex(4)}.jsonl"
    try:
        digest, count = _write_list(listed, sources)
        manifest = {
            "inputs": {"images": count, "sha256": digest, "unit": unit_size(count)},
            "settings": dict(settings),
        }
        path = out / MANIFEST_FILE
        if not path.exists():
            _begin(path, manifest)
        _check_manifest(path, manifest)
        if not ((out / INPUTS_FILE).is_file() and file_digest(out / INPUTS_FILE) == digest):
            with named_write_errors(out / INPUTS_FILE):
                listed.replace(out / INPUTS_FILE)
    finally:
        listed.unlink(missing_ok=True)
    return InputList(out / INPUTS_FILE, count)


def _write_list(path: Path, sources: Iterable[ImageSource]) -> tuple[str, int]:
    """Writes the list of inputs; returns its SHA-256 and the number of images.

    Raises:
        OSError: if the inputs cannot be listed, or the list cannot be written.
        ValueError: if there are none.
    """
    digest, count, remaining = hashlib.sha256(), 0, iter(sources)
    while lines := [source.to_line() for source in islice(remaining, _LINES_AT_A_TIME)]:
        chunk = b"".join(lines)
        digest.update(chunk)
        count += len(lines)
        with named_write_errors(path.parent), path.open("ab") as file:  # errors of listing are no errors of writing
            file.write(chunk)
    if not count:
        raise ValueError("no image in the inputs: check their names")
    return digest.hexdigest(), count


def _begin(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, unless another process has done so.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the folder has results without a manifest.
    """
    found = sorted(path.parent.glob("part-*")) + [
        file for name in (ERRORS_FILE, ERRORS_FOLDER, INPUTS_FILE) if (file := path.parent / name).exists()
    ]
    if path.exists():
        return
    if found:
        raise ValueError(f"{found[0]} exists, but {path} of the run that it belongs to does not: choose another --out")
    with named_write_errors(path):
        temporary = path.with_name(f".manifest-{secrets.token_hex(4)}.json")
        try:
            write_json_atomically(temporary, manifest, indent=2)
            os.link(temporary, path)  # unlike a rename, it never replaces the manifest of another run
        except FileExistsError:
            pass
        except OSError:
            temporary.replace(path)  # a disk without hard links
        finally:
            temporary.unlink(missing_ok=True)


def check_new_folder(folder: str | None) -> None:
    """Checks that a folder or a cloud path, if it is given, has no files, which would be read as results, too.

    Raises:
        ValueError: if it has files.
    """
    if folder is None:
        return
    from pyarrow import ArrowInvalid, fs

    try:
        filesystem, path = fs.FileSystem.from_uri(folder if has_scheme(folder) else os.path.abspath(folder))  # noqa: PTH100
    except ArrowInvalid:  # of a kind that pyarrow does not know
        return
    if filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True)):
        raise ValueError(
            f"{folder} is not empty, and its files would be read as results: give a new folder, or empty it"
        )


def _check_manifest(path: Path, expected: Mapping[str, Any]) -> None:
    """Raises ValueError if the manifest of a folder differs from the expected one."""
    try:
        found = json.loads(read_bytes(path))
        inputs, settings = dict(found["inputs"]), dict(found["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no manifest of a run: choose another --out") from error
    hint = "resume with the command that began the run, or choose another --out"
    if inputs != expected["inputs"]:
        raise ValueError(
            f"{path.parent} has results of other inputs: {inputs.get('images')} images, now "
            f"{expected['inputs']['images']}"
            + (", with other names" if inputs.get("images") == expected["inputs"]["images"] else "")
            + f"; {hint}"
        )
    changed = [
        f"{name} was {settings.get(name)!r}, now {expected['settings'].get(name)!r}"
        for name in sorted(settings.keys() | expected["settings"].keys())
        if settings.get(name) != expected["settings"].get(name)
    ]
    if changed:
        raise ValueError(f"{path.parent} has results of other settings: {'; '.join(changed)}; {hint}")
