"""Persons without keypoints, shown in an easy and a hard crop each, for the consistency loss of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from posedy.config import ConsistencyConfig
from posedy.data.augment import RandomCropAffine, training_transform
from posedy.data.categories import read_person_category_id
from posedy.data.check import check_boxes
from posedy.data.coco import CocoPersons
from posedy.data.coco_annotations import log_invalid_values, read_annotations
from posedy.data.coco_file import CocoFile, log_duplicate_image_ids, read_images
from posedy.data.datasets import AugmentedCropDataset, SampleIndex, TopDownTrainDataset
from posedy.data.image_check import ImageCheck, check_images
from posedy.data.issues import IssueLog, count_reasons, format_reasons
from posedy.data.tables import PackedNames
from posedy.geometry import invert_affine, xywh_to_xyxy
from posedy.skeleton import Skeleton

# The third part of seeds, which labeled samples do not have.
_STREAM = 1


def read_unlabeled(
    annotations: Path | str, images: Path | str, skeleton: Skeleton, image_check: ImageCheck = "always"
) -> CocoPersons:
    """Reads the person boxes of a COCO file; keypoints are neither required nor used.

    Args:
        annotations: the file; an annotation needs `image_id`, `category_id` and `bbox`, and crowds are left out.
        images: the folder that file names are relative to.
        skeleton: the skeleton of the labeled persons.
        image_check: when to open all images, see `read_coco`.

    Returns:
        The persons, with visibility 0 for all keypoints.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if the file is invalid or has no person with a box; the message names the file and the invalid
            images and annotations.
    """
    file, folder, log = CocoFile.read(annotations), Path(images), IssueLog()
    image_table = read_images(file, log)
    category = {**skeleton.to_coco_category(), "id": read_person_category_id(file, log)}
    table = read_annotations(file, image_table, category, log)
    log_duplicate_image_ids(image_table, log)
    log_invalid_values(table, log, ("image_id", "bbox"))
    unlisted = ~table.invalid["image_id"] & (table.image_index < 0)
    invalid = table.invalid["image_id"] | table.invalid["bbox"]
    usable, left_out = count_reasons({"with errors": invalid, "of unlisted images": unlisted, "crowd": table.crowd})
    check_boxes(table, usable, log)
    if not usable.any():
        log.error(
            "no usable person",
            f"0 of {len(file.annotations)} annotations kept, left out: {format_reasons(left_out)}",
            f"A person needs category_id {category['id']}, the id of a listed image and a box.",
        )
    with_persons = np.zeros(len(image_table.ids), dtype=bool)
    with_persons[table.image_index[usable]] = True
    check_images(image_table, with_persons, Path(file.source), folder, False, image_check, log)
    log.raise_errors(file.source)
    count, num_keypoints = int(usable.sum()), skeleton.num_keypoints
    return CocoPersons(
        annotations=Path(file.source),
        image_dir=folder,
        skeleton=skeleton,
        category_id=category["id"],
        image_ids=np.array(image_table.ids, dtype=np.int64),
        image_sizes=image_table.sizes,
        file_names=PackedNames.pack(image_table.names),
        annotation_ids=table.ids[usable],
        image_index=table.image_index[usable],
        boxes=xywh_to_xyxy(table.boxes[usable]).astype(np.float32),
        keypoints=np.zeros((count, num_keypoints, 2), dtype=np.float32),
        visibility=np.zeros((count, num_keypoints), dtype=np.uint8),
        left_out=left_out,
        warnings=tuple(issue for issue in log.issues if issue.severity == "warning"),
    )


class UnlabeledDataset(TopDownTrainDataset):
    """An easy and a hard crop of each person of one or more COCO files, without keypoints.

    A sample is a dict of

    - `easy_crop` and `hard_crop` (H, W, 3) uint8 RGB, two random crops of the same person;
    - `easy_to_hard` and `hard_to_easy` (2, 3) float32, the affine maps between their pixels;
    - `is_swapped` (bool), whether exactly one of them is flipped, so that left and right differ;
    - `is_covered` (K,) bool, the random keypoints that cutout covers in the hard crop.

    It depends on (seed, epoch, index) alone.

    Args:
        sets: persons from `read_unlabeled`.
        input_size: (W, H) of the crops.
        config: the augmentations and the number of covered keypoints.
        padding: factor on the size of the boxes.
        seed: seed of the augmentation.
    """

    def __init__(
        self,
        sets: Sequence[CocoPersons],
        input_size: tuple[int, int],
        config: ConsistencyConfig,
        padding: float,
        seed: int,
    ) -> None:
        super().__init__(sets, input_size, config.easy, padding, seed)
        self.num_covered = min(config.cutout_keypoints, self.skeleton.num_keypoints)
        hard = training_transform(input_size, self.skeleton.flip_permutation, config.hard.photometric)
        self._augmentations = [
            (self.random_affine, self.transform),
            (RandomCropAffine(input_size, self.skeleton, config.hard), hard),
        ]

    def __getitems__(self, indices: Sequence[SampleIndex | int]) -> list[dict[str, Any]]:
        """Returns the samples of a batch; torch's loader calls it once per batch."""
        return [self._sample(self._sample_index(index)) for index in indices]

    def _sample(self, item: SampleIndex) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, item.epoch, item.index, _STREAM))
        image, pose = self._images.read(self._image_path(item.index)), self.poses[item.index]
        crops, matrices, flips = [], [], []
        for random_affine, transform in self._augmentations:
            matrix, flip = random_affine.sample(rng, self.centers[item.index], self.sizes[item.index], pose)
            transform.set_random_seed(int(rng.integers(2**32)))
            crops.append(transform(image=image, image_to_crop=matrix, flip=flip, keypoints=pose)["image"])
            matrices.append(np.vstack([matrix, [0, 0, 1]]))
            flips.append(flip)
        easy_to_hard = (matrices[1] @ np.linalg.inv(matrices[0]))[:2]
        is_covered = np.zeros(self.skeleton.num_keypoints, dtype=bool)
        is_covered[rng.choice(len(is_covered), self.num_covered, replace=False)] = True
        return {
            "easy_crop": crops[0],
            "hard_crop": crops[1],
            "easy_to_hard": easy_to_hard.astype(np.float32),
            "hard_to_easy": invert_affine(easy_to_hard).astype(np.float32),
            "is_swapped": flips[0] != flips[1],
            "is_covered": is_covered,
        }


class MixedDataset(Dataset[dict[str, Any]]):
    """Labeled and unlabeled samples: `SampleIndex.is_unlabeled` selects the dataset.

    Args:
        labeled: the labeled training set.
        unlabeled: the unlabeled training set.
    """

    def __init__(self, labeled: AugmentedCropDataset, unlabeled: UnlabeledDataset) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    def __getitem__(self, index: SampleIndex) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SampleIndex]) -> list[dict[str, Any]]:
        """Returns the samples of a batch, the labeled ones first."""
        labeled = self.labeled.__getitems__([index for index in indices if not index.is_unlabeled])
        return labeled + self.unlabeled.__getitems__([index for index in indices if index.is_unlabeled])
