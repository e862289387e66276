"""What the importers read: images, persons and their keypoints, in pixels of the image that the tool showed."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posedy.data.issues import IssueLog, format_issues, short_repr
from posedy.data.tables import MAX_COORDINATE

Box = tuple[float, float, float, float]
"""x, y of the upper left and of the lower right corner, in pixels."""

PERSON = "person"
"""The label of persons in exports without labels, and the default of those with several."""

_ADVICE = {
    "missing value": "Export the annotations again: the tool writes it.",
    "invalid number": "Write a finite number of pixels (of percent in Label Studio), not NaN or infinity.",
    "invalid visibility": "Visibility is 0 for not labeled, 1 for labeled but occluded, 2 for visible.",
    "unknown keypoint": "Correct the label in the tool, or give all names with --keypoints.",
    "duplicate keypoint": "A person has each keypoint once: remove one of them, or give them different groups.",
    "several boxes of one person": "A person has one box: remove the other or give it another group.",
    "keypoint without a person": "Group the keypoints of each person in the tool: it is in none or in several of the "
    "boxes.",
    "unnamed keypoints": "A shape of several points has no names: give them in its order with --keypoints.",
    "invalid box": "A box has a width and a height above 0, in pixels.",
    "box outside its image": "Correct the box in the tool.",
    "keypoint outside its image": "Move the keypoint into the image, or remove it in the tool.",
    "image without a size": "Give the folder of the images with --images: their sizes are read from the files.",
    "missing image": "Give the folder that has the images with --images.",
    "image of another size": "The annotations are of another version of the image: give the folder of the images that "
    "were annotated.",
    "several items with one image": "Persons of one image are in one item: rename the images, or remove duplicates.",
    "invalid entry": "Export the annotations again.",
}


class ImportFileError(ValueError):
    """An export of an annotation tool that is invalid; the message names the file and the items."""


class ErrorLog:
    """Collects the errors of one export by kind.

    Args:
        source: the file or folder.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._errors: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, description: str) -> None:
        """Adds an error; its description names the item and what came."""
        self._errors[kind].append(description)

    def raise_errors(self, others: IssueLog | None = None) -> None:
        """Raises all errors, if there are any.

        Raises:
            ImportFileError: with all kinds of errors in its message.
        """
        log = IssueLog()
        for kind, descriptions in self._errors.items():
            log.add("error", kind, descriptions, str, _ADVICE[kind])
        errors = (*log.errors, *(others.errors if others is not None else ()))
        if errors:
            raise ImportFileError(format_issues(self.source, errors))

    def number(self, value: Any, where: str) -> float | None:
        """Converts a number or numeric text to a float; logs an error and returns None for other values."""
        try:
            number = math.nan if isinstance(value, bool) or value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if abs(number) < MAX_COORDINATE:  # false for NaN
            return number
        self.add("invalid number", f"{where}: {short_repr(value)}")
        return None

    def numbers(self, values: Iterable[Any], where: str) -> list[float] | None:
        """Converts numbers or numeric texts to floats; logs an error about the first other value and returns None."""
        found = []
        for value in values:
            number = self.number(value, where)
            if number is None:
                return None
            found.append(number)
        return found


@dataclass(frozen=True)
class ImportedKeypoint:
    """A labeled keypoint of an export: its position in pixels and its visibility.

    Attributes:
        where: its description in messages.
        x: in pixels.
        y: in pixels.
        v: 1 if it is occluded, 2 if it is visible.
    """

    where: str
    x: float
    y: float
    v: int


@dataclass(frozen=True)
class ImportedPerson:
    """A person, or an object of another label.

    Attributes:
        where: its description in messages.
        label: its class, None if the export has none.
        keypoints: the labeled keypoints by name.
        box: the box, None if the export has none.
        problem: why its keypoints have no names; an error if its label is converted.
    """

    where: str
    label: str | None
    keypoints: Mapping[str, ImportedKeypoint]
    box: Box | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ImportedImage:
    """An image of an export: its possible file names, its size and its persons.

    Attributes:
        where: the file and the item in it, for messages.
        names: names that its file may have in the image folder, the likeliest first.
        size: width and height that the tool recorded, None if it did not.
        persons: its persons.
        path: the location of the image file if the export names it.
    """

    where: str
    names: tuple[str, ...]
    size: tuple[int, int] | None
    persons: tuple[ImportedPerson, ...]
    path: Path | None = None


@dataclass(frozen=True)
class ImportedFile:
    """The content of an export.

    Attributes:
        source: the file or folder.
        image_dir: the folder that probably has the images.
        images: its images, in the order of the export.
        keypoint_names: the names of all keypoints by label, in the export's order; a label without an entry has those
            of its persons.
        limbs: pairs of connected keypoint names by label.
        left_out: number of other objects, by reason.
        notes: sentences about assumptions.
    """

    source: Path
    image_dir: Path
    images: tuple[ImportedImage, ...]
    keypoint_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limbs: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def rotate_box(box: Box, degrees: float, pivot: tuple[float, float]) -> Box:
    """Returns the box around the corners of a box that is rotated clockwise about a point."""
    if not degrees:
        return box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x - pivot[0], y - pivot[1]) for x in (box[0], box[2]) for y in (box[1], box[3])]
    xs = [pivot[0] + x * cos - y * sin for x, y in corners]
    ys = [pivot[1] + x * sin + y * cos for x, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def read_size(width: Any, height: Any, where: str, errors: ErrorLog) -> tuple[int, int] | None:
    """Returns the recorded size of an image; None if it is missing, or after logging an error."""
    if width is None or height is None:
        return None
    sides = errors.numbers((width, height), f"{where}: width, height")
    if sides is None:
        return None
    if any(side < 1 or side != int(side) for side in sides):
        errors.add("invalid number", f"{where}: width {width}, height {height}: expected whole numbers above 0")
        return None
    return int(sides[0]), int(sides[1])
