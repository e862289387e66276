"""Persons as crops: what training and testing read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from posedy.config import AugmentConfig
from posedy.data.augment import RandomCropAffine, training_transform
from posedy.data.coco import CocoPersons
from posedy.geometry import FloatArray, image_to_crop_matrix, padded_region, warp_crop
from posedy.images import read_image


class SampleIndex(NamedTuple):
    """One sample of an epoch: who, and whether it counts or only fills a batch up to the size of other ranks'."""

    epoch: int
    person: int
    counts: bool = True


class _LastPhoto:
    """Reads photos and keeps the last one, for neighbors that are on the same."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._photo: NDArray[np.uint8] | None = None

    def read(self, path: Path) -> NDArray[np.uint8]:
        if self._photo is None or self._path != path:
            self._path, self._photo = path, read_image(path)
        return self._photo


class TopDownTrainDataset(Dataset[dict[str, Any]]):
    """Randomly varied crops of the persons of one or more COCO files.

    A sample depends on (seed, epoch, index) alone, whichever process makes it, and costs one decoding of the photo and
    one warp; persons of one photo that follow one another share the decoding. Indexed by `SampleIndex`. Gives `crop`
    (H, W, 3) uint8 RGB, `keypoints` (K, 2) float32 in crop pixels, `labeled` (K,) bool (none if the draw does not
    count) and `annotation_id`.

    Args:
        sets: COCO files of the same keypoints.
        input_size: (W, H) of the crops.
        augment: how much they vary.
        padding: of the boxes.
        seed: of all randomness.

    Raises:
        ValueError: if the sets differ in their keypoints.
    """

    def __init__(
        self,
        sets: Sequence[CocoPersons],
        input_size: tuple[int, int],
        augment: AugmentConfig,
        padding: float,
        seed: int,
    ) -> None:
        for other in sets[1:]:
            if other.skeleton.keypoints != sets[0].skeleton.keypoints:
                raise ValueError(
                    f"{sets[0].annotations} and {other.annotations} differ in their keypoints: "
                    f"{list(sets[0].skeleton.keypoints)} and {list(other.skeleton.keypoints)}"
                )
        self.sets = list(sets)
        self.ends = np.cumsum([len(persons) for persons in sets])
        self.seed = seed
        self.input_size = input_size
        self.skeleton = sets[0].skeleton
        self.variation = RandomCropAffine(input_size, self.skeleton, augment)
        self.transform = training_transform(input_size, self.skeleton.flip_permutation, augment.photometric)
        self._is_random = len(augment.photometric) > 0
        # what does not depend on the epoch, for all persons at once
        boxes = np.concatenate([persons.boxes for persons in sets])
        self.centers, self.sizes = padded_region(boxes, input_size[0] / input_size[1], padding)
        self.poses = np.concatenate(
            [np.dstack([persons.keypoints, persons.visibility]).astype(np.float32) for persons in sets]
        )
        self.annotation_ids = np.concatenate([persons.annotation_ids for persons in sets])
        self._last_photo = _LastPhoto()

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def fingerprint(self) -> str:
        """Changes with any person, box or keypoint, and not with the place of the files."""
        return "+".join(persons.fingerprint for persons in self.sets)

    def __getitem__(self, draw: SampleIndex) -> dict[str, Any]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[SampleIndex]) -> list[dict[str, Any]]:
        """The samples of a batch; torch's loader asks for all at once."""
        # All matrices first: after a photo has been decoded, Python's own data are out of the processor's cache.
        seeds = [np.random.SeedSequence((self.seed, *draw[:2])).generate_state(1)[0] for draw in draws]
        varied = [
            self.variation.draw(np.random.default_rng(seed), self.centers[index], self.sizes[index], self.poses[index])
            for seed, (_, index, _) in zip(seeds, draws, strict=True)
        ]
        samples = []
        for draw, seed, (image_to_crop, flip) in zip(draws, seeds, varied, strict=True):
            if self._is_random:
                self.transform.set_random_seed(int(seed))
            photo = self._last_photo.read(self._path(draw.person))
            sample = self.transform(
                image=photo, image_to_crop=image_to_crop, flip=flip, keypoints=self.poses[draw.person]
            )
            samples.append(
                {
                    "crop": sample["image"],
                    "keypoints": sample["keypoints"][:, :2].astype(np.float32),
                    "labeled": (sample["keypoints"][:, 2] > 0) & draw.counts,
                    "annotation_id": self.annotation_ids[draw.person],
                }
            )
        return samples

    def _path(self, index: int) -> Path:
        which = int(np.searchsorted(self.ends, index, side="right"))
        persons = self.sets[which]
        return persons.image_path(int(persons.image_index[index - (int(self.ends[which - 1]) if which else 0)]))


class TopDownEvalDataset(Dataset[dict[str, Any]]):
    """Crops of given boxes, unvaried: `crop` (H, W, 3) uint8 RGB and `index`.

    Boxes are read image by image, so that a photo is decoded once for neighboring boxes of the same process.

    Args:
        persons: the COCO file, for its photos.
        image_index: (D,) index of each box's image in the COCO file.
        boxes: (D, 4) xyxy in image pixels.
        input_size: (W, H) of the crops.
        padding: of the boxes.
    """

    def __init__(
        self,
        persons: CocoPersons,
        image_index: NDArray[np.int64],
        boxes: NDArray[np.float32],
        input_size: tuple[int, int],
        padding: float,
    ) -> None:
        self.persons = persons
        self.image_index = image_index
        self.input_size = input_size
        self.centers, self.sizes = padded_region(boxes, input_size[0] / input_size[1], padding)
        self._last_photo = _LastPhoto()

    def __len__(self) -> int:
        return len(self.image_index)

    def image_to_crop(self, index: int) -> FloatArray:
        """The (2, 3) affine map of a crop."""
        return image_to_crop_matrix(self.centers[index], self.sizes[index], self.input_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        photo = self._last_photo.read(self.persons.image_path(int(self.image_index[index])))
        return {"crop": warp_crop(photo, self.image_to_crop(index), self.input_size), "index": index}


def set_up_worker(_: int) -> None:
    """Set-up of a worker process.

    One thread each, since the processes are what runs side by side. A process group of its own: terminals and `timeout`
    signal a whole group, and the process that trains or tests still needs its workers to end in order.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
