"""Grouping of single keypoints and boxes to persons."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from posedy.data.imports.structure import Box, ErrorLog, ImportedKeypoint, ImportedPerson

_Group = tuple[str, Hashable]


@dataclass(frozen=True)
class KeypointShape:
    """A keypoint before it belongs to a person.

    Attributes:
        name: the keypoint's name.
        keypoint: its coordinates.
        group: the group in the tool, None if it has none.
    """

    name: str
    keypoint: ImportedKeypoint
    group: Hashable | None = None


@dataclass(frozen=True)
class BoxShape:
    """A box before it belongs to a person.

    Attributes:
        where: its description in messages.
        label: its class.
        box: x, y of two corners.
        group: the group in the tool, None if it has none.
    """

    where: str
    label: str
    box: Box
    group: Hashable | None = None


def group_shapes(
    keypoints: Sequence[KeypointShape], boxes: Sequence[BoxShape], errors: ErrorLog
) -> tuple[ImportedPerson, ...]:
    """Groups the keypoints and boxes of an image to persons.

    Shapes of one group are a person. Keypoints without a group are one person if nothing has a group and there is at
    most one box; otherwise each belongs to the only box around it. A box without keypoints is a person without them.

    Args:
        keypoints: the keypoints of an image.
        boxes: its boxes.
        errors: the log of keypoints without a person, duplicates and groups with several boxes.
    """
    grouped_boxes: dict[_Group, BoxShape] = {}
    for index, box in enumerate(boxes):
        group = ("box", index) if box.group is None else ("group", box.group)
        if group in grouped_boxes:
            errors.add("several boxes of one person", f"{box.where} and {grouped_boxes[group].where}")
        grouped_boxes[group] = box
    members: dict[_Group, dict[str, ImportedKeypoint]] = {group: {} for group in grouped_boxes}
    has_groups = any(
        group is not None for group in [*(shape.group for shape in keypoints), *(box.group for box in boxes)]
    )
    for shape in keypoints:
        around = [("group", shape.group)] if shape.group is not None else [("box", 0)]
        if shape.group is None and (has_groups or len(boxes) > 1):
            around = [group for group, box in grouped_boxes.items() if _contains(box.box, shape.keypoint)]
        if len(around) == 1:
            add_keypoint(members.setdefault(around[0], {}), shape.name, shape.keypoint, errors)
        else:
            errors.add(
                "keypoint without a person", f"{shape.keypoint.where}: in {len(around)} of {len(boxes)} boxes, no group"
            )
    persons = []
    for group, named in members.items():
        own = grouped_boxes.get(group)
        where = own.where if own else next(iter(named.values())).where
        persons.append(ImportedPerson(where, own.label if own else None, named, own.box if own else None))
    return tuple(persons)


def add_keypoint(
    keypoints: dict[str, ImportedKeypoint], name: str, keypoint: ImportedKeypoint, errors: ErrorLog
) -> None:
    """Adds a keypoint to those of a person; a second one of the same name is logged as an error."""
    if name in keypoints:
        errors.add("duplicate keypoint", f"{keypoint.where} and {keypoints[name].where}")
    keypoints[name] = keypoint


def match_boxes(persons: Sequence[ImportedPerson]) -> tuple[ImportedPerson, ...]:
    """Gives boxes without keypoints to the persons without a box.

    A box belongs to a person if it contains all keypoints of this person only, and no other such box contains them.

    Args:
        persons: the persons of one label and one image.

    Returns:
        The persons without those that were a box of another.
    """
    boxes = [index for index, person in enumerate(persons) if not person.keypoints]
    around = {
        index: [number for number in boxes if _contains_all(persons[number], person)]
        for index, person in enumerate(persons)
        if person.box is None and person.keypoints
    }
    counts = Counter(number for found in around.values() for number in found)
    matched = {index: found[0] for index, found in around.items() if len(found) == 1 and counts[found[0]] == 1}
    used = set(matched.values())
    return tuple(
        replace(person, box=persons[matched[index]].box) if index in matched else person
        for index, person in enumerate(persons)
        if index not in used
    )


def _contains_all(box: ImportedPerson, person: ImportedPerson) -> bool:
    return box.box is not None and all(_contains(box.box, keypoint) for keypoint in person.keypoints.values())


def _contains(box: Box, keypoint: ImportedKeypoint) -> bool:
    return box[0] <= keypoint.x <= box[2] and box[1] <= keypoint.y <= box[3]
