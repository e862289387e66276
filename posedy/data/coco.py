"""COCO keypoint files as arrays of persons (training, testing) and as ground truth (COCOeval)."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.config import SkeletonConfig
from posedy.data.categories import apply_overrides, read_keypoint_category
from posedy.data.check import summarize, validate
from posedy.data.coco_annotations import AnnotationTable, log_invalid_values, read_annotations
from posedy.data.coco_file import AnnotationSource, CocoFile, format_value, log_duplicate_image_ids, read_images
from posedy.data.file_names import find_image
from posedy.data.image_check import ImageCheck
from posedy.data.issues import IssueLog, ValidationIssue
from posedy.data.tables import PackedNames
from posedy.geometry import xywh_to_xyxy
from posedy.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class CocoPersons:
    """The usable persons of a COCO keypoint file: no crowds, at least one labeled keypoint.

    All data that grow with the file are arrays, which worker processes share without copying.

    Attributes:
        annotations: the file.
        image_dir: the folder of its images, if given.
        skeleton: the skeleton of K keypoints.
        category_id: the id of the persons' category, also used in results.
        image_ids: (I,) ids of all images of the file, including those without persons.
        image_sizes: (I, 2) width and height in pixels.
        file_names: I paths relative to `image_dir`.
        annotation_ids: (P,) ids of the annotations.
        image_index: (P,) index of the image among the I.
        boxes: (P, 4) xyxy in image pixels.
        keypoints: (P, K, 2) in image pixels.
        visibility: (P, K) 0 not labeled, 1 labeled but occluded, 2 visible.
        left_out: number of annotations that are not among the P, by reason.
        warnings: the validation warnings about the file.
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
    warnings: tuple[ValidationIssue, ...]

    def __len__(self) -> int:
        return len(self.annotation_ids)

    def image_path(self, image_index: int) -> Path:
        """Returns the path of an image file.

        Raises:
            ValueError: if `image_dir` is None.
            IndexError: if there is no such image.
        """
        if self.image_dir is None:
            raise ValueError(f"{self.annotations} was read without an image folder: pass `images` to read_coco")
        return find_image(self.image_dir, self.file_names[image_index])

    @property
    def fingerprint(self) -> str:
        """A hash of all persons, boxes and keypoints that does not depend on the path of the file."""
        parts = (self.annotation_ids, self.image_ids[self.image_index], self.boxes, self.keypoints, self.visibility)
        return f"{len(self)} persons, {hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()[:16]}"

    def summary(self) -> str:
        """Summarizes in one line the images, the persons and the annotations left out."""
        num_images = len(np.unique(self.image_index))
        return summarize(self.annotations, len(self.image_ids), len(self), num_images, self.left_out)


def read_coco(
    annotations: Path | str | CocoFile,
    images: Path | str | None = None,
    overrides: SkeletonConfig | None = None,
    image_check: ImageCheck = "always",
) -> CocoPersons:
    """Reads and validates a COCO keypoint file.

    An omitted `num_keypoints` is counted, an omitted `iscrowd` is 0, and persons without keypoints are left out.

    Args:
        annotations: a file like person_keypoints_train2017.json, with COCO's keypoints or others, or a `CocoFile`.
        images: the folder that file names are relative to; it must exist if given.
        overrides: properties of the skeleton that override the file's.
        image_check: when to open all images to check that they exist and have the recorded size: "always", "once" (not
            again after a check without issues, while the file and the folder are unchanged) or "never".

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if the file is invalid; the message lists every kind of error with its count and first examples.
    """
    file = annotations if isinstance(annotations, CocoFile) else CocoFile.read(annotations)
    folder = None if images is None else Path(images)
    validated = validate(file, folder, overrides=overrides, image_check=image_check)
    table, skeleton, report = validated.table, validated.skeleton, validated.report
    report.raise_errors()
    assert table is not None
    assert skeleton is not None
    usable = validated.usable
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
        left_out=validated.left_out,
        warnings=report.warnings,
    )


# the keys of an annotation that COCOeval reads
_KEYS = ("image_id", "category_id", "keypoints", "area", "bbox", "iscrowd")


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of one category of a COCO annotation file, for COCOeval.

    Attributes:
        source: the file's path, or "annotations" for content in memory.
        category: the record of the category that has keypoints.
        category_ids: the ids of all categories of the file.
        image_ids: the ids of all images, sorted.
        annotations: copies of the category's annotations in the file's order, including crowds and unlabeled persons,
            with the keys that COCOeval reads; those of unlisted images are left out. Their ids are numbered from 1:
            COCOeval interprets id 0 as "not matched", and keeps only one of several annotations with the same id.
        file_names: the file name of each image by image id; "" if there is no valid one.
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
        """The evaluated persons: no crowds, at least one labeled keypoint."""
        return [person for person in self.annotations if person["num_keypoints"] > 0 and not person["iscrowd"]]

    @classmethod
    def from_coco(
        cls, annotations: AnnotationSource | CocoFile, overrides: SkeletonConfig | None = None
    ) -> "GroundTruth":
        """Reads the ground truth from an annotation file or its content.

        It is less strict than `read_coco`, to evaluate files of other tools unchanged: ids may be text, annotations
        need no id. What files may omit is as in `read_coco`.

        Args:
            annotations: the file, its content (which is not changed), or a `CocoFile`.
            overrides: properties of the skeleton that override the file's, such as sigmas.

        Raises:
            OSError: if the file cannot be read.
            CocoFileError: if it is not a COCO keypoint file, or two images have the same id; the message names the file
                and the invalid images and annotations.
            ValueError: if the overrides do not match the keypoints.
        """
        file = annotations if isinstance(annotations, CocoFile) else CocoFile.read(annotations)
        log = IssueLog()
        category = read_keypoint_category(file, log, allow_text_ids=True)
        images = read_images(file, log, needs=(), allow_text_ids=True)
        if category is None:
            raise log.to_error(file.source)
        table = read_annotations(file, images, category, log)
        listed = table.image_index >= 0
        unlisted = [table.records[index]["image_id"] for index in np.flatnonzero(~listed & ~table.invalid["image_id"])]
        _check_for_evaluation(table, log)
        log.raise_errors(file.source)
        if unlisted:
            warnings.warn(
                f"{file.source}: {len(unlisted)} annotations are left out: their {len(set(unlisted))} images are not "
                f"listed in 'images', such as {min(unlisted, key=str)!r}",
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
            category=apply_overrides(category, overrides),
            category_ids=frozenset(value for value in category_ids if isinstance(value, int | str)),
            image_ids=tuple(sorted(images.ids)),
            annotations=tuple(copies),
            file_names=dict(zip(images.ids, images.names, strict=True)),
        )


def _check_for_evaluation(table: AnnotationTable, log: IssueLog) -> None:
    """Logs duplicate image ids, and the annotations of listed images that are invalid for COCOeval."""
    log_duplicate_image_ids(table.images, log)
    listed = table.image_index >= 0
    log_invalid_values(table, log, ("image_id",))
    log_invalid_values(table, log, ("keypoints", "bbox", "area", "iscrowd"), listed)
    log.add(
        "error",
        "crowd without a box",
        np.flatnonzero(listed & table.crowd & ~table.invalid["bbox"] & np.isnan(table.boxes[:, 0])),
        lambda i: f"{table.describe(i)}: {format_value(table.records[i], 'bbox')}",
        "COCO's evaluation ignores persons in it: write its x, y, width, height in pixels, or remove the annotation.",
    )
    log.add(
        "error",
        "area negative or not finite",
        np.flatnonzero(listed & ~table.invalid["area"] & ~(np.isfinite(table.areas) & (table.areas >= 0))),
        lambda i: f"{table.describe(i)}: {format_value(table.records[i], 'area')}",
        "OKS divides by it: write the area of the person's mask, or of the box if there is no mask.",
    )
    given = np.array(["num_keypoints" in record for record in table.records], dtype=bool) & listed
    counts = table.num_keypoints
    is_count = np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
    log.add(
        "error",
        "num_keypoints is not a count",
        np.flatnonzero(given & ~is_count),
        lambda i: f"{table.describe(i)}: num_keypoints {table.records[i]['num_keypoints']!r:.60}",
        "Write the number of keypoints with v > 0, or omit it.",
    )
    log.add(
        "error",
        "num_keypoints without a labeled keypoint",
        np.flatnonzero(given & is_count & (counts > 0) & ~table.invalid["keypoints"] & (table.num_labeled == 0)),
        lambda i: f"{table.describe(i)}: num_keypoints {counts[i]:g}, but v is 0 everywhere",
        "Set it to 0, or write v = 2 for labeled keypoints.",
    )
