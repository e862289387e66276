"""COCO keypoint files as arrays of persons, for training and testing, and as ground truth, for COCOeval."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.config import SkeletonConfig
from posedy.data.categories import read_category, with_overrides
from posedy.data.check import examine, summarize
from posedy.data.coco_file import (
    AnnotationSource,
    AnnotationTable,
    CocoFile,
    log_invalid_values,
    read_annotations,
    read_images,
)
from posedy.data.findings import Finding, FindingLog
from posedy.data.image_check import ImageCheck
from posedy.data.tables import PackedNames
from posedy.geometry import xywh_to_xyxy
from posedy.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class CocoPersons:
    """The persons of a COCO keypoint file that can be trained and tested on: not a crowd, some keypoint labeled.

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
        visibility: (P, K) 0 not labeled, 1 labeled but hidden, 2 visible.
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
        return summarize(self.annotations, len(self.image_ids), len(self), num_images, self.left_out)


def read_coco(
    annotations: Path | str | CocoFile,
    images: Path | str | None = None,
    overrides: SkeletonConfig | None = None,
    image_check: ImageCheck = "always",
) -> CocoPersons:
    """Reads and checks a COCO keypoint file.

    Args:
        annotations: a file like person_keypoints_train2017.json, with COCO's keypoints or others; or what
            `CocoFile.read` made of it.
        images: the folder that its file names count from; given, it must exist.
        overrides: what a configuration says about the keypoints in place of the file.
        image_check: whether every image is opened to check that it is there and of the recorded size: "always", "once"
            (not again if the last check found nothing and the file and the folder are unchanged) or "never".

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if anything makes the file unfit for use; the message lists every kind of error with its count
            and the first few culprits.
    """
    file = annotations if isinstance(annotations, CocoFile) else CocoFile.read(annotations)
    folder = None if images is None else Path(images)
    examination = examine(file, folder, overrides=overrides, image_check=image_check)
    table, skeleton, report = examination.table, examination.skeleton, examination.report
    report.raise_errors()
    assert table is not None
    assert skeleton is not None
    usable = examination.usable
    return CocoPersons(
        annotations=Path(file.source),
        image_dir=folder,
        skeleton=skeleton,
        category_id=table.category["id"],
        image_ids=np.array(table.images.ids, dtype=np.int64),
        image_sizes=table.images.sizes,
        file_names=PackedNames.pack(table.images.names),
        annotation_ids=table.ids[usable],
        image_index=table.image_index[usable],
        boxes=xywh_to_xyxy(table.boxes[usable]).astype(np.float32),
        keypoints=table.keypoints[usable, :, :2].astype(np.float32),
        visibility=table.keypoints[usable, :, 2].astype(np.uint8),
        left_out=examination.left_out,
        warnings=report.warnings,
    )


# what COCOeval reads of an annotation
_KEYS = ("image_id", "category_id", "keypoints", "area", "bbox", "iscrowd")


@dataclass(frozen=True)
class GroundTruth:
    """One category's annotations of a COCO annotation file, for COCOeval.

    Attributes:
        source: the file's path, or "annotations" for content in memory.
        category: the record of the category that has keypoints.
        category_ids: the ids of all categories of the file.
        image_ids: the ids of all images, sorted.
        annotations: copies of the category's annotations in the file's order, crowds and unlabeled persons included,
            with the keys that COCOeval reads; those of images that the file does not list are left out. Their ids
            count from 1: COCOeval takes an id of 0 for "not matched", and of two equal ids it sees only one.
        file_names: the file name of each image, by image id; "" where the file gives no valid one.
    """

    source: str
    category: Mapping[str, Any]
    category_ids: frozenset[Any]
    image_ids: tuple[Any, ...]
    annotations: tuple[dict[str, Any], ...]
    file_names: Mapping[Any, str]

    @property
    def num_keypoints(self) -> int:
        """The number K of the category's keypoints."""
        return len(self.category["keypoints"])

    @property
    def labeled(self) -> list[dict[str, Any]]:
        """The persons that count: no crowds, at least one labeled keypoint."""
        return [person for person in self.annotations if person["num_keypoints"] > 0 and not person["iscrowd"]]

    @classmethod
    def from_coco(
        cls, annotations: AnnotationSource | CocoFile, overrides: SkeletonConfig | None = None
    ) -> "GroundTruth":
        """Reads the ground truth from an annotation file or from its content; what is given is left as it is.

        It is less strict than `read_coco`, since files of other tools are evaluated as they are: ids may be text,
        annotations need no id, and one without `num_keypoints` has as many as are labeled (v > 0).

        Args:
            annotations: the file, its content, or what `CocoFile.read` made of it.
            overrides: what a configuration says about the keypoints in place of the file, such as sigmas.

        Raises:
            OSError: if the file cannot be read.
            CocoFileError: if it is not a COCO keypoint file; the message names the file and the annotations.
            ValueError: if the overrides do not fit the keypoints.
        """
        file = annotations if isinstance(annotations, CocoFile) else CocoFile.read(annotations)
        log = FindingLog()
        category = read_category(file, log, allow_text_ids=True)
        images = read_images(file, log, needs=(), allow_text_ids=True)
        if category is None:
            raise log.as_error(file.source)
        table = read_annotations(file, images, category, log)
        listed = table.image_index >= 0
        unlisted = [table.records[index]["image_id"] for index in np.flatnonzero(~listed & ~table.invalid["image_id"])]
        _check_for_evaluation(table, log)
        log.raise_errors(file.source)
        if unlisted:
            warnings.warn(
                f"{file.source}: {len(unlisted)} annotations are left out, of {len(set(unlisted))} images that "
                f"'images' does not list, such as {min(unlisted, key=str)!r}",
                stacklevel=2,
            )
        counts = np.where(table.invalid["num_keypoints"], table.num_labeled, table.num_keypoints)
        copies = [
            {**{key: table.records[index][key] for key in _KEYS}, "num_keypoints": int(counts[index]), "id": number}
            for number, index in enumerate(np.flatnonzero(listed), start=1)
        ]
        category_ids = [record["id"] for record in file.categories if isinstance(record, Mapping) and "id" in record]
        return cls(
            source=file.source,
            category=with_overrides(category, overrides),
            category_ids=frozenset(value for value in category_ids if isinstance(value, int | str)),
            image_ids=tuple(sorted(set(images.ids))),
            annotations=tuple(copies),
            file_names=dict(zip(images.ids, images.names, strict=True)),
        )


def _check_for_evaluation(table: AnnotationTable, log: FindingLog) -> None:
    """Logs the annotations of listed images that COCOeval cannot use."""
    listed = table.image_index >= 0
    log_invalid_values(table, log, ("image_id",))
    log_invalid_values(table, log, ("keypoints", "bbox", "area", "iscrowd"), listed)
    log.add(
        "error",
        "area that is negative or not finite",
        np.flatnonzero(listed & ~table.invalid["area"] & ~(np.isfinite(table.areas) & (table.areas >= 0))),
        lambda i: f"{table.describe(i)}: area {table.areas[i]:g}",
        "OKS divides by it: write the area of the person's mask, or of the box where there is no mask.",
    )
    given = np.array(["num_keypoints" in record for record in table.records], dtype=bool) & listed
    counts = table.num_keypoints
    is_count = np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
    log.add(
        "error",
        "num_keypoints that is not a count",
        np.flatnonzero(given & ~is_count),
        lambda i: f"{table.describe(i)}: num_keypoints {table.records[i]['num_keypoints']!r:.60}",
        "Write the number of keypoints with v > 0, or leave it out.",
    )
    log.add(
        "error",
        "num_keypoints without a labeled keypoint",
        np.flatnonzero(given & is_count & (counts > 0) & ~table.invalid["keypoints"] & (table.num_labeled == 0)),
        lambda i: f"{table.describe(i)}: num_keypoints {counts[i]:g}, but v is 0 everywhere",
        "Set it to 0, or write v = 2 where a keypoint is labeled.",
    )
