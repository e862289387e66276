"""Datasets of person crops for training and evaluation, from COCO files (`coco.py`)."""

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from posedy.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """The index of a training sample: an epoch, which selects the augmentation, and a person.

    Attributes:
        epoch: the epoch, from 0.
        index: the person's index in the dataset.
        is_padding: whether the sample only fills up a rank's batch; its keypoints are then unlabeled.
        is_unlabeled: whether it is a sample of the unlabeled training set (`MixedDataset`).
    """

    epoch: int
    index: int
    is_padding: bool = False
    is_unlabeled: bool = False


class _ImageCache:
    """Reads images and keeps the last one, since neighboring samples often share it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._image: NDArray[np.uint8] | None = None

    def read(self, path: Path) -> NDArray[np.uint8]:
        if self._image is None or self._path != path:
            self._path, self._image = path, read_image(path)
        return self._image


class TrainPerson(NamedTuple):
    """A person of a training set.

    Attributes:
        annotation_id: the id of the annotation.
        center: (2,) center of the padded box in image pixels.
        size: (2,) width and height of the padded box.
        pose: (K, 3) float32 of x and y in image pixels and visibility.
        read_image: reads the image (H, W, 3) uint8 RGB.
    """

    annotation_id: int
    center: FloatArray
    size: FloatArray
    pose: NDArray[np.float32]
    read_image: Callable[[], NDArray[np.uint8]]


class AugmentedCropDataset(Dataset[dict[str, Any]], ABC):
    """Randomly augmented crops of persons: the base class of training sets, which read the persons.

    `dataset[SampleIndex(epoch, index)]` is a sample of an epoch, `dataset[index]` that of epoch 0. A sample is a dict
    of `crop` (H, W, 3) uint8 RGB, `keypoints` (K, 2) float32 in crop pixels, `labeled` (K,) bool (all False for
    padding) and `annotation_id`. It depends on (seed, epoch, index) alone and costs one image decoding and one warp.

    Args:
        source: the file of the dataset.
        skeleton: the skeleton of K keypoints.
        input_size: (W, H) of the crops.
        augment: the parameters of the augmentation.
        padding: factor on the size of the boxes.
        seed: seed of the augmentation.

    Attributes:
        shard_sizes: (S,) number of samples of each shard, in the order of the samples; None for no shards.
    """

    shard_sizes: NDArray[np.int64] | None = None

    def __init__(
        self,
        source: Path,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        augment: AugmentConfig,
        padding: float,
        seed: int,
    ) -> None:
        self.source = source
        self.skeleton = skeleton
        self.input_size = input_size
        self.padding = padding
        self.seed = seed
        self.random_affine = RandomCropAffine(input_size, skeleton, augment)
        self.transform = training_transform(input_size, skeleton.flip_permutation, augment.photometric)
        self._has_photometric = len(augment.photometric) > 0

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of persons."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of all persons, boxes and keypoints that does not depend on the paths of the files."""

    @abstractmethod
    def _persons(self, indices: Sequence[int]) -> list[TrainPerson]:
        """Returns persons; their images are read later."""

    def _padded_regions(self, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns centers (N, 2) and sizes (N, 2) of the padded boxes (N, 4) xyxy."""
        return padded_region(boxes, self.input_size[0] / self.input_size[1], self.padding)

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SampleIndex | int]) -> list[dict[str, Any]]:
        """Returns the samples of a batch; torch's loader calls it once per batch."""
        batch = [self._sample_index(index) for index in indices]
        persons = self._persons([item.index for item in batch])
        # Compute all matrices first: decoding an image evicts Python's own data from the processor's cache.
        seeds = [np.random.SeedSequence((self.seed, item.epoch, item.index)).generate_state(1)[0] for item in batch]
        affines = [
            self.random_affine.sample(np.random.default_rng(seed), person.center, person.size, person.pose)
            for seed, person in zip(seeds, persons, strict=True)
        ]
        samples = []
        for item, person, seed, (image_to_crop, flip) in zip(batch, persons, seeds, affines, strict=True):
            if self._has_photometric:
                self.transform.set_random_seed(int(seed))
            sample = self.transform(
                image=person.read_image(), image_to_crop=image_to_crop, flip=flip, keypoints=person.pose
            )
            samples.append(
                {
                    "crop": sample["image"],
                    "keypoints": sample["keypoints"][:, :2].astype(np.float32),
                    "labeled": (sample["keypoints"][:, 2] > 0) & (not item.is_padding),
                    "annotation_id": person.annotation_id,
                }
            )
        return samples

    def _sample_index(self, index: SampleIndex | int) -> SampleIndex:
        sample = index if isinstance(index, SampleIndex) else SampleIndex(0, int(index))
        if not 0 <= sample.index < len(self):
            raise IndexError(f"expected a sample index from 0 to {len(self) - 1}, got {sample.index}")
        return sample


class TopDownTrainDataset(AugmentedCropDataset):
    """Randomly augmented crops of the persons of one or more COCO files.

    Consecutive samples of one image share the decoding.

    Args:
        sets: COCO files of the same keypoints.
        input_size: (W, H) of the crops.
        augment: the parameters of the augmentation.
        padding: factor on the size of the boxes.
        seed: seed of the augmentation.

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
        super().__init__(sets[0].annotations, sets[0].skeleton, input_size, augment, padding, seed)
        self.sets = list(sets)
        self._ends = np.cumsum([len(persons) for persons in sets])
        # computed once for all persons, since it does not depend on the epoch
        self.centers, self.sizes = self._padded_regions(np.concatenate([persons.boxes for persons in sets]))
        self.poses = np.concatenate(
            [np.dstack([persons.keypoints, persons.visibility]).astype(np.float32) for persons in sets]
        )
        self.annotation_ids = np.concatenate([persons.annotation_ids for persons in sets])
        self._images = _ImageCache()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def fingerprint(self) -> str:
        """A hash of all persons, boxes and keypoints that does not depend on the paths of the files."""
        return "+".join(persons.fingerprint for persons in self.sets)

    def _persons(self, indices: Sequence[int]) -> list[TrainPerson]:
        return [
            TrainPerson(
                self.annotation_ids[index],
                self.centers[index],
                self.sizes[index],
                self.poses[index],
                partial(self._images.read, self._image_path(index)),
            )
            for index in indices
        ]

    def _image_path(self, index: int) -> Path:
        which = int(np.searchsorted(self._ends, index, side="right"))
        persons = self.sets[which]
        start = int(self._ends[which - 1]) if which else 0
        return persons.image_path(int(persons.image_index[index - start]))


class TopDownEvalDataset(Dataset[dict[str, Any]]):
    """Crops of given boxes without augmentation: `crop` (H, W, 3) uint8 RGB and `index`.

    Consecutive boxes of one image share its decoding.

    Args:
        persons: the COCO file that lists the images.
        image_index: (D,) index of each box's image in the COCO file.
        boxes: (D, 4) xyxy in image pixels.
        input_size: (W, H) of the crops.
        padding: factor on the size of the boxes.
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
        self._images = _ImageCache()

    def __len__(self) -> int:
        return len(self.image_index)

    def image_to_crop(self, index: int) -> FloatArray:
        """Returns the affine map (2, 3) from image pixels to the pixels of a crop."""
        return image_to_crop_matrix(self.centers[index], self.sizes[index], self.input_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._images.read(self.persons.image_path(int(self.image_index[index])))
        return {"crop": warp_crop(image, self.image_to_crop(index), self.input_size), "index": index}


def set_up_worker(_: int) -> None:
    """Sets up a worker process: one thread, and a process group of its own.

    Workers run in parallel already, so more threads would only compete. Terminals and `timeout` signal a whole process
    group, SLURM all processes of a job; the main process needs its workers until it has shut down in order. Therefore
    SIGTERM ends a worker only if it comes from the main process (on Linux; macOS does not tell the sender).
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    main_process = multiprocessing.parent_process()
    if main_process is not None and hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # also in the thread, which waits for it
        threading.Thread(target=_end_by, args=(main_process.pid,), daemon=True).start()


def _end_by(pid: int | None) -> None:
    """Ends this process as soon as the process `pid` sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != pid:
        pass
    os._exit(0)
