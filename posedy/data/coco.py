"""COCO keypoint files as arrays of persons."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.config import SkeletonConfig
from posedy.data.check import ImageCheck, examine, summarise
from posedy.data.findings import CocoFileError, Finding
from posedy.data.tables import PackedNames
from posedy.geometry import xywh_to_xyxy
from posedy.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class CocoPersons:
    """The persons of a COCO keypoint file that can be trained and tested on: not a crowd, some keypoint labelled.

    All that grows with the file is arrays, so worker processes share its memory.

    Attributes:
        annotations: the file.
        image_dir: the folder of its photos, if it was given.
        skeleton: the meaning of the K keypoints.
        category_id: the category of the persons, which results name too.
        image_ids: (I,) ids of all images of the file, with persons or without.
        image_sizes: (I, 2) width and height in pixels.
        file_names: I paths below `image_dir`.
        annotation_ids: (P,).
        image_index: (P,) index of the image among the I.
        boxes: (P, 4) xyxy in image pixels.
        keypoints: (P, K, 2) in image pixels.
        visibility: (P, K) 0 not labelled, 1 labelled but hidden, 2 visible.
        left_out: how many annotations are not among the P, by reason.
        warnings: what to look at in the file.
    """

    annotations: Path
    image_dir: Path | None
    skeleton: Skeleton
    category_id: int
    image_ids: NDArray[np.int64]
    image_sizes: NDArray[np.int32]
    file_names: PackedNames
    annotation_ids: NDArray[np.int64]
    image_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    left_out: dict[str, int]
    warnings: tuple[Finding, ...]

    def __len__(self) -> int:
        return len(self.annotation_ids)

    def image_path(self, image_index: int) -> Path:
        """The photo of an image.

        Raises:
            ValueError: if the file was read without its folder of photos.
            IndexError: if there is no such image.
        """
        if self.image_dir is None:
            raise ValueError(f"{self.annotations} was read without photos: give their folder to read_coco as `images`")
        return self.image_dir / self.file_names[image_index]

    @property
    def fingerprint(self) -> str:
        """Changes with any person, box or keypoint of the file, and not with its place."""
        parts = (self.annotation_ids, self.image_ids[self.image_index], self.boxes, self.keypoints, self.visibility)
        return f"{len(self)} persons, {hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()[:16]}"

    def summary(self) -> str:
        """One line: images, persons, what was left out and why."""
        num_images = len(np.unique(self.image_index))
        return summarise(self.annotations, len(self.image_ids), len(self), num_images, self.left_out)


def read_coco(
    annotations: Path | str,
    images: Path | str | None = None,
    overrides: SkeletonConfig | None = None,
    image_check: ImageCheck = "always",
) -> CocoPersons:
    """Reads and checks a COCO keypoint file.

    Args:
        annotations: a file like person_keypoints_train2017.json, with COCO's keypoints or others.
        images: the folder that its file names count from; given, it must exist.
        overrides: what a configuration says about the keypoints in place of the file.
        image_check: whether every image is opened to check that it is there and of the recorded size: "always", "once"
            (not again if the last check found nothing and the file and the folder are unchanged) or "never".

    Raises:
        CocoFileError: if anything makes the file unfit for use; the message lists every kind of error with its count
            and the first few culprits.
    """
    annotations, folder = Path(annotations), None if images is None else Path(images)
    examination = examine(annotations, folder, overrides=overrides, image_check=image_check)
    tables, usable, report = examination.tables, examination.usable, examination.report
    if tables is None or not report.ok:
        lines = "\n".join(f"  {finding}" for finding in report.errors)
        raise CocoFileError(f"{annotations} cannot be used:\n{lines}")
    records = tables.annotations
    return CocoPersons(
        annotations=annotations,
        image_dir=folder,
        skeleton=tables.skeleton,
        category_id=tables.category_id,
        image_ids=tables.images.ids,
        image_sizes=tables.images.sizes,
        file_names=tables.images.names,
        annotation_ids=records.ids[usable],
        image_index=records.image_index[usable],
        boxes=xywh_to_xyxy(records.boxes[usable]).astype(np.float32),
        keypoints=records.keypoints[usable, :, :2].astype(np.float32),
        visibility=records.keypoints[usable, :, 2].astype(np.uint8),
        left_out=examination.left_out,
        warnings=report.warnings,
    )
