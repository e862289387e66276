"""The list of inputs on disk, its units, and the manifest that makes sure that a resumed run has the same ones."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from posedy.files import named_write_errors, read_bytes, write_json_atomically
from posedy.inference.bulk.sources import ImageSource

INPUTS_FILE, MANIFEST_FILE = "inputs.jsonl", "manifest.json"
_SMALLEST_UNIT = 64
_MAX_UNITS = 10_000  # files in one folder


def unit_size(num_images: int) -> int:
    """Returns the number of images of a unit: 64, doubled until there are at most 10,000 units."""
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
        """Number of units."""
        return len(self._offsets)

    def images_in(self, unit: int) -> int:
        """Returns the number of images of a unit."""
        return min(self.unit_size, self.num_images - unit * self.unit_size)

    def read_unit(self, unit: int) -> list[ImageSource]:
        """Reads the sources of a unit."""
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
    out.mkdir(parents=True, exist_ok=True)
    listed = out / f".inputs-{secrets.token_hex(4)}.jsonl"
    try:
        digest, count = hashlib.sha256(), 0
        with named_write_errors(out), listed.open("wb") as file:
            for source in sources:
                line = source.to_line()
                digest.update(line)
                file.write(line)
                count += 1
        if not count:
            raise ValueError("no image in the inputs: check their names")
        manifest = {
            "inputs": {"images": count, "sha256": digest.hexdigest(), "unit": unit_size(count)},
            "settings": dict(settings),
        }
        path = out / MANIFEST_FILE
        if not path.exists():
            listed.replace(out / INPUTS_FILE)
            with named_write_errors(path):
                write_json_atomically(path, manifest, indent=2)
        _check_manifest(path, manifest)
    finally:
        listed.unlink(missing_ok=True)
    return InputList(out / INPUTS_FILE, count)


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
