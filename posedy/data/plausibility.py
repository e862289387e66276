"""Detection of coordinates that are no image pixels, such as fractions of the image size, by boxes and keypoints."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posedy.data.box_form import LARGEST_FRACTION, LARGEST_PERCENT
from posedy.data.coco_annotations import AnnotationTable
from posedy.data.issues import IssueLog, short_repr
from posedy.data.tables import BoolArray
from posedy.geometry import FloatArray

# Fewer keypoints near the corner of the image may be mistakes of another kind.
_MIN_FRACTIONS = 3
# Pixels and fractions of smaller images cannot be told apart.
_MIN_IMAGE = 10
# Percent: some coordinate is near 100 and none above, although the images are larger. Several persons are rarely all in
# this corner; one suffices if its area is that of a larger box.
_MIN_PERCENT = 75.0
_MIN_PERCENT_IMAGE = 200
_MIN_PERCENT_PERSONS = 3
# Thousandths: the largest x and the largest y are both in this range, whatever the shape of the images.
_THOUSANDTHS = (800.0, 1000.0)
# Of COCO's 8,600 persons with local images, none has a keypoint outside its box by half of the box's longer side, and
# 1.5 % of the keypoints are outside by a tenth of it.
_FAR, _NEAR = 0.5, 0.1
_MAX_SHARE_OUTSIDE = 0.25
_MIN_KEYPOINTS = 12
# An explanation must place this share of the keypoints in their boxes.
_EXPLAINED = 0.9
# The cause is searched with the first of many affected persons.
_MAX_EXPLAINED = 100
_BORDER = 2.0


@dataclass(frozen=True, eq=False)
class _Persons:
    """The boxes and keypoints of P persons.

    Attributes:
        rows: (P,) indices of the annotations.
        boxes: (P, 4) xywh.
        points: (P, K, 2).
        labeled: (P, K).
        sizes: (P, 2) width and height of the images.
    """

    rows: NDArray[np.int64]
    boxes: FloatArray
    points: FloatArray
    labeled: BoolArray
    sizes: NDArray[np.int32]

    def __getitem__(self, which: BoolArray | slice) -> "_Persons":
        return _Persons(self.rows[which], self.boxes[which], self.points[which], self.labeled[which], self.sizes[which])

    def outside(self, tolerance: float) -> BoolArray:
        """Returns the mask (P, K) of labeled keypoints outside their box by this share of its longer side."""
        low, extent = self.boxes[:, None, :2], self.boxes[:, None, 2:]
        distance = np.maximum(low - self.points, self.points - low - extent).max(axis=-1)
        return np.logical_and(self.labeled, distance > tolerance * extent.max(axis=-1) + 1)

    def inside_share(self, tolerance: float = _NEAR) -> float:
        """Returns the share of the labeled keypoints that are in their box, or near it by the tolerance."""
        return 1 - float(self.outside(tolerance).sum() / max(self.labeled.sum(), 1))

    def exceeding(self) -> BoolArray:
        """Returns the mask (P,) of boxes that exceed their image."""
        low, high = self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]
        return np.logical_or((low < -_BORDER).any(axis=1), (high > self.sizes + _BORDER).any(axis=1))


def check_plausibility(table: AnnotationTable, usable: BoolArray, sizes: NDArray[np.int32], log: IssueLog) -> None:
    """Logs one issue, with its likely cause, if boxes or keypoints of usable persons are not in image pixels.

    Fractions are an error; other coordinates may be right, however unlikely, and are a warning.

    Args:
        table: the annotations.
        usable: (A,) mask of the usable persons.
        sizes: (A, 2) width and height of the images, 0 if unknown.
        log: the log of errors and warnings.
    """
    extents = table.boxes[:, 2:]
    checked = usable & (extents > 0).all(axis=1) & (sizes >= _MIN_IMAGE).all(axis=1)
    rows = np.flatnonzero(checked)
    points, flags = table.keypoints[rows, :, :2], table.keypoints[rows, :, 2]
    labeled = (flags > 0) & (np.abs(points) < 1e7).all(axis=-1)
    persons = _Persons(rows, table.boxes[rows], np.where(labeled[..., None], points, 0.0), labeled, sizes[rows])
    if len(rows) and not (_log_fractions(persons, table, log) or _log_percent(persons, table, log)):
        _log_frames(persons, table, log)


def _log_fractions(persons: _Persons, table: AnnotationTable, log: IssueLog) -> bool:
    """Logs persons whose box or labeled keypoints have no coordinate above 1.5, but broken ones."""
    corners = np.concatenate([persons.boxes, persons.boxes[:, :2] + persons.boxes[:, 2:]], axis=1)
    points = persons.points.reshape(len(persons.rows), -1)
    small_box, small_points = ((np.abs(values) <= LARGEST_FRACTION).all(axis=1) for values in (corners, points))
    broken = np.array([(values != np.floor(values)).any(axis=1) for values in (corners, points)])
    is_box = small_box & (broken[0] | (small_points & broken[1]))
    # a real person may have a labeled keypoint in the corner of the image, but then its box is there
    is_points = small_points & broken[1] & (persons.labeled.sum(axis=1) >= _MIN_FRACTIONS)
    is_points &= (persons.outside(_NEAR) == persons.labeled).all(axis=1)
    bad = persons.rows[is_box | is_points]
    log.add(
        "error",
        "coordinates are fractions",
        bad,
        lambda row: f"{table.describe(row)}: bbox {short_repr(table.boxes[row].tolist())}, {_extent(table, row)}",
        "No coordinate exceeds 1.5, as in YOLO's labels: multiply x and width by the image's width, y and height by "
        "its height (`posedy convert` converts a YOLO dataset).",
    )
    return len(bad) > 0


def _extent(table: AnnotationTable, row: int) -> str:
    points = table.keypoints[row][table.keypoints[row, :, 2] > 0, :2]
    if not len(points):
        return "no labeled keypoints"
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return f"keypoints x {x0:.4g} to {x1:.4g}, y {y0:.4g} to {y1:.4g}"


def _log_percent(persons: _Persons, table: AnnotationTable, log: IssueLog) -> bool:
    """Logs a file whose coordinates are all at most 100 and reach far, while its images are larger."""
    large = persons[persons.sizes.min(axis=1) >= _MIN_PERCENT_IMAGE]
    exceeds_box = table.areas[large.rows] > large.boxes[:, 2:].prod(axis=1)
    if len(large.rows) < _MIN_PERCENT_PERSONS and not (len(large.rows) and exceeds_box.all()):
        return False
    last = max(float((large.boxes[:, :2] + large.boxes[:, 2:]).max()), float(large.points.max()))
    if not _MIN_PERCENT <= last <= LARGEST_PERCENT:
        return False
    log.add(
        "warning",
        "coordinates may be percent of the image size",
        large.rows,
        lambda row: f"{table.describe(row)}: bbox {short_repr(table.boxes[row].tolist())}, {_extent(table, row)}",
        f"No coordinate exceeds {last:.4g}, but images have up to {large.sizes.max()} pixels a side: if they are "
        "percent, as in Label Studio's files, multiply x and width by the image's width / 100, y and height by its "
        "height / 100.",
    )
    return True


def _log_frames(persons: _Persons, table: AnnotationTable, log: IssueLog) -> None:
    """Logs persons whose keypoints are outside their box, or boxes that are no x, y, width, height."""
    far = persons.outside(_FAR).sum(axis=1) > persons.labeled.sum(axis=1) / 2
    outside = persons.outside(_NEAR)
    share = outside.sum() / max(persons.labeled.sum(), 1)
    if share > _MAX_SHARE_OUTSIDE and persons.labeled.sum() >= _MIN_KEYPOINTS:
        far |= outside.sum(axis=1) > persons.labeled.sum(axis=1) / 2
    if far.any():
        log.add(
            "warning",
            "labeled keypoints outside their own box",
            np.flatnonzero(far),
            lambda index: (
                f"{table.describe(persons.rows[index])}: {outside[index].sum()} of {persons.labeled[index].sum()}, "
                f"bbox {short_repr(persons.boxes[index].tolist())}, {_extent(table, persons.rows[index])}"
            ),
            f"{share:.0%} of all labeled keypoints are outside. "
            + _explain_keypoints(persons[far][:_MAX_EXPLAINED], persons, table),
        )
        return
    exceeding = persons.exceeding()
    if exceeding.mean() < _MAX_SHARE_OUTSIDE:
        return
    for cause, changed in _box_candidates(persons):
        fits = ~changed.exceeding() & (changed.boxes[:, 2:] > 0).all(axis=1)
        if fits.mean() > _EXPLAINED and changed.inside_share() > _EXPLAINED:
            log.add(
                "warning",
                "boxes may not be x, y, width, height in pixels",
                persons.rows[exceeding],
                lambda row: f"{table.describe(row)}: bbox {short_repr(table.boxes[row].tolist())}",
                f"{exceeding.mean():.0%} of all boxes exceed their image. {cause}",
            )
            return


def _explain_keypoints(far: _Persons, persons: _Persons, table: AnnotationTable) -> str:
    """Returns a sentence with the change that places the keypoints in their boxes."""
    low, extent = far.boxes[:, :2], far.boxes[:, 2:]
    scale = far.sizes / 100
    candidates = {  # the most specific first
        "if they were percent of the image size: multiply them by it / 100": replace(
            far, points=far.points * scale[:, None]
        ),
        "if boxes were percent of the image size: multiply boxes by it / 100": replace(
            far, boxes=far.boxes * np.tile(scale, 2)
        ),
        "after adding the box's x, y: they seem to be relative to the box's corner": replace(
            far, points=far.points + low[:, None]
        ),
        "with x and y exchanged: write x, y, v of a keypoint and x, y, width, height of a box": replace(
            far, points=far.points[..., ::-1]
        ),
        "if x, y of a box were its center: write its upper left corner": replace(
            far, boxes=np.concatenate([low - extent / 2, extent], axis=1)
        ),
        "the box of another person of the image: check which box belongs to which keypoints": replace(
            far, boxes=_boxes_of_others(far, persons, table)
        ),
    }
    cause = max(candidates, key=lambda cause: candidates[cause].inside_share(0))
    if candidates[cause].inside_share() > _EXPLAINED:
        return f"They would be inside {cause}."
    return "Check that boxes and keypoints are of the same person and image, in pixels."


def _boxes_of_others(far: _Persons, persons: _Persons, table: AnnotationTable) -> FloatArray:
    """Returns the box (P, 4) of another person of the same image with the most keypoints of each person."""
    images = table.image_index[persons.rows]
    boxes = far.boxes.copy()
    for index, row in enumerate(far.rows):
        others = persons.boxes[(images == table.image_index[row]) & (persons.rows != row)]
        if len(others):
            repeated = far[np.full(len(others), index)]
            boxes[index] = others[replace(repeated, boxes=others).outside(_NEAR).sum(axis=1).argmin()]
    return boxes


def _box_candidates(persons: _Persons) -> list[tuple[str, _Persons]]:
    """Returns other meanings of the boxes, each with a sentence."""
    x, y, width, height = persons.boxes.T
    corners = np.stack([x, y, width - x, height - y], axis=1)
    swapped = np.stack([y, x, height, width], axis=1)
    candidates = [
        ("All would fit as x1, y1, x2, y2: write x, y, width, height.", replace(persons, boxes=corners)),
        (
            "All would fit with x and y of boxes and keypoints exchanged: write x, y, width, height and x, y, v.",
            replace(persons, boxes=swapped, points=persons.points[..., ::-1]),
        ),
    ]
    ends = (persons.boxes[:, :2] + persons.boxes[:, 2:]).max(axis=0)
    if (ends >= _THOUSANDTHS[0]).all() and (ends <= _THOUSANDTHS[1]).all():
        scale = persons.sizes / 1000
        points, boxes = persons.points * scale[:, None], persons.boxes * np.tile(scale, 2)
        cause = "All would fit as thousandths of the image size: multiply boxes and keypoints by it / 1000."
        candidates.append((cause, replace(persons, boxes=boxes, points=points)))
    return candidates
