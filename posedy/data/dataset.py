"""Persons as crops: what training and testing read."""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from posedy.config import AugmentConfig
from posedy.data.augment import training_transform
from posedy.data.coco import CocoPersons
from posedy.data.photos import read_photo
from posedy.geometry import FloatArray, image_to_crop_matrix, padded_region, warp_crop


class TrainingCrops(Dataset[dict[str, Any]]):
    """Randomly varied crops of the persons of one or more COCO files.

    A sample depends on (seed, epoch, index) alone, whichever process makes it. Indexed by (epoch, index), as
    `EpochSampler` does. Gives `crop` (H, W, 3) uint8 RGB, `keypoints` (K, 2) float32 in crop pixels, `labelled` (K,)
    bool and `annotation_id`.

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
        self.skeleton = sets[0].skeleton
        self.transform = training_transform(input_size, sets[0].skeleton, augment, padding)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        which = int(np.searchsorted(self.ends, index, side="right"))
        persons = self.sets[which]
        person = index - (int(self.ends[which - 1]) if which else 0)
        photo = read_photo(persons.image_path(int(persons.image_index[person])))
        self.transform.set_random_seed(int(np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)[0]))
        sample = self.transform(
            image=photo,
            box=persons.boxes[person],
            keypoints=persons.keypoints[person],
            visibility=persons.visibility[person].astype(np.float32),
        )
        return {
            "crop": sample["image"],
            "keypoints": sample["keypoints"].astype(np.float32),
            "labelled": np.asarray(sample["visibility"]) > 0,
            "annotation_id": persons.annotation_ids[person],
        }


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) in an order that depends on (seed, epoch) alone.

    On several devices each rank takes its part of every batch; the last batch is filled up from the epoch's beginning
    where it does not divide.

    Args:
        size: samples of an epoch.
        batch_size: samples of a batch, over all ranks; the last may be smaller.
        seed: of the order.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Chooses the epoch of the next iteration and the batch that it begins with."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        for begin in range(self.start * self.batch_size, self.size, self.batch_size):
            batch = order[begin : begin + self.batch_size]
            missing = -len(batch) % self.world_size
            batch = np.concatenate([batch, np.resize(order, missing)])
            yield [(self.epoch, int(index)) for index in batch[self.rank :: self.world_size]]


class BoxCrops(Dataset[dict[str, Any]]):
    """Crops of given boxes, unvaried: `crop` (H, W, 3) uint8 RGB and `index`.

    Boxes are read image by image, so that a photo is decoded once for neighbouring boxes of the same process.

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
        self._photo: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.image_index)

    def image_to_crop(self, index: int) -> FloatArray:
        """The (2, 3) affine map of a crop."""
        return image_to_crop_matrix(self.centers[index], self.sizes[index], self.input_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_index = int(self.image_index[index])
        if self._photo is None or self._photo[0] != image_index:
            self._photo = image_index, read_photo(self.persons.image_path(image_index))
        return {"crop": warp_crop(self._photo[1], self.image_to_crop(index), self.input_size), "index": index}


def use_one_thread(_: int) -> None:
    """Set-up of a worker process: one thread each, since the processes are what runs side by side."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
