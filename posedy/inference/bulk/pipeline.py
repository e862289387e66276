"""From images that are being read to the poses of whole units: reading, detection and prediction at the same time."""

from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.images import rgb_to_bgr
from posedy.inference.bulk.formats import ImageResult
from posedy.inference.crop_batch import check_sides
from posedy.inference.detectors import Detections
from posedy.inference.estimator import PoseEstimator
from posedy.inference.image_groups import read_groups
from posedy.inference.threads import Prefetcher

_DRAWING_SIDE = 640

Image = NDArray[np.uint8]


class Job(NamedTuple):
    """An image that is being read.

    Attributes:
        unit: the number of its unit.
        number: its number in the list of inputs.
        name: its name in the results.
        image: the image (H, W, 3) RGB, upright, or an OSError, TypeError or ValueError.
    """

    unit: int
    number: int
    name: str
    image: "Future[Image]"


@dataclass
class UnitResult:
    """The poses and errors of the images of one unit of bulk prediction.

    Attributes:
        number: the number of the unit.
        results: the poses of its images.
        errors: the name of each image that failed, and the reason.
        drawn: for each image to draw its number, a small copy (h, w, 3) RGB, and its poses.
    """

    number: int
    results: list[ImageResult] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    drawn: list[tuple[int, Image, ImageResult]] = field(default_factory=list)

    @property
    def num_persons(self) -> int:
        """Number of persons on all images of the unit."""
        return sum(len(result.poses) for result in self.results)


def predict_units(
    jobs: Iterable[Job], estimator: PoseEstimator, drawn: Collection[int] = frozenset()
) -> Generator[UnitResult]:
    """Predicts the poses of images, unit by unit.

    Persons are detected in groups of images, and their keypoints predicted in batches over images, of one unit. The
    detector runs in a thread of its own, one group ahead.

    Args:
        jobs: the images, sorted by unit.
        estimator: detects the persons and predicts their keypoints.
        drawn: the numbers of the images of which a small copy is kept.

    Yields:
        The results of each unit.
    """
    with closing(Prefetcher(_detect(jobs, estimator), 1)) as detected:
        for number, groups in groupby(detected, key=attrgetter("unit")):
            batch, unit = estimator.new_batch(), UnitResult(number)
            for group in groups:
                for job, rgb, found in group.images:
                    height, width = rgb.shape[:2]
                    result = ImageResult(job.name, width, height, batch.add(rgb, *found))
                    unit.results.append(result)
                    if job.number in drawn:
                        unit.drawn.append((job.number, _shrink(rgb), result))
                unit.errors += group.errors
            batch.flush()
            _move_failed(unit)
            yield unit


def _move_failed(unit: UnitResult) -> None:
    """Moves images whose poses are not finite, which the formats cannot have, to the errors of the unit."""
    results, unit.results = unit.results, []
    for result in results:
        if np.isfinite(result.poses.keypoints).all() and np.isfinite(result.poses.scores).all():
            unit.results.append(result)
        else:
            reason = f"the network predicts numbers that are not finite for image {result.image}: check its weights"
            unit.errors.append((result.image, reason))
    unit.drawn = [drawn for drawn in unit.drawn if drawn[2] in unit.results]


@dataclass
class _Group:
    """A group of images of one unit with the boxes of persons, and the errors of the others."""

    unit: int
    images: list[tuple[Job, Image, Detections]]
    errors: list[tuple[str, str]]


def _detect(jobs: Iterable[Job], estimator: PoseEstimator) -> Iterator[_Group]:
    for number, in_unit in groupby(jobs, key=attrgetter("unit")):
        for group in read_groups(in_unit, _get_image):
            loaded = [(job, rgb) for job, rgb in group if not isinstance(rgb, Exception)]
            errors = [(job.name, str(error)) for job, error in group if isinstance(error, Exception)]
            found = estimator.detect_many([rgb_to_bgr(rgb) for _, rgb in loaded]) if loaded else []
            images = []
            for (job, rgb), boxes in zip(loaded, found, strict=True):
                if isinstance(boxes, Exception):
                    errors.append((job.name, str(boxes)))
                else:
                    images.append((job, rgb, boxes))
            yield _Group(number, images, errors)


def _get_image(job: Job) -> Image:
    rgb = job.image.result()
    check_sides(rgb, f"image {job.name}")
    return rgb


def _shrink(rgb: Image) -> Image:
    """Returns a copy of an image with at most 640 pixels a side."""
    scale = min(1.0, _DRAWING_SIDE / max(rgb.shape[:2]))
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
