"""Images of classes in folders, ROOT/SPLIT/CLASS/IMAGE, and their datasets for training and evaluation."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from posedy.config import ClassifierAugmentConfig
from posedy.data.datasets import SampleIndex
from posedy.image_paths import IMAGE_SUFFIXES
from posedy.images import read_image


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """The image files of a split of an image folder, with their classes.

    Attributes:
        folder: ROOT/SPLIT.
        classes: the names of the classes, as `read` returns them in alphabetical order.
        paths: the images.
        labels: the index of each image's class in `classes`.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: Sequence[Path]
    labels: Sequence[int]

    @classmethod
    def read(cls, root: Path, split: str) -> "LabeledImages":
        """Lists the images of a split, without hidden files and folders.

        Raises:
            OSError: if the folder is missing.
            ValueError: if it has less than two classes, or a class has no images.
        """
        folder = root / split
        if not folder.is_dir():
            found = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())) if root.is_dir() else ""
            raise FileNotFoundError(
                f"expected folders of classes in {folder.resolve()} (data.root=ROOT with ROOT/train/CLASS/IMAGE and "
                f"ROOT/val/CLASS/IMAGE), {f'ROOT has {found}' if found else 'got none'}"
            )
        images = _VisibleImages(str(folder), allow_empty=True, is_valid_file=partial(_is_visible_image, folder))
        counts = Counter(label for _, label in images.samples)
        empty = [name for name, label in images.class_to_idx.items() if not counts[label]]
        if empty:
            raise ValueError(
                f"{folder}: the class {empty[0]!r} has no images"
                + (f" (and {len(empty) - 1} more classes)" if len(empty) > 1 else "")
                + ": add images (jpg, png, webp, ...), or delete the folder"
            )
        paths = [Path(path) for path, _ in images.samples]
        return cls(folder, tuple(images.classes), paths, [label for _, label in images.samples])

    def with_classes(self, classes: Sequence[str], source: str) -> "LabeledImages":
        """Orders the classes as a training set or a network does, whose outputs are in this order.

        Args:
            classes: the names in the expected order.
            source: what has these classes.

        Raises:
            ValueError: if the names differ.
        """
        for names, others, without in ((self.classes, classes, source), (classes, self.classes, str(self.folder))):
            missing = sorted(set(names) - set(others))
            if missing:
                other = str(self.folder) if without == source else source
                raise ValueError(f"{without} has no class {missing[0]!r}, which {other} has")
        index_of = {name: index for index, name in enumerate(classes)}
        labels = [index_of[self.classes[label]] for label in self.labels]
        return dataclasses.replace(self, classes=tuple(classes), labels=labels)

    def shuffled(self) -> "LabeledImages":
        """Returns the images in a random order, always the same, so that neighbors are of different classes."""
        order = np.random.default_rng(0).permutation(len(self)).tolist()
        paths, labels = ([items[index] for index in order] for items in (self.paths, self.labels))
        return dataclasses.replace(self, paths=paths, labels=labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __str__(self) -> str:
        return f"{self.folder}: {len(self)} images of {len(self.classes)} classes"

    @property
    def fingerprint(self) -> str:
        """A hash of the names of classes and images that does not depend on the root."""
        names = [path.relative_to(self.folder).as_posix() for path in self.paths]
        return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]


class _VisibleImages(ImageFolder):
    """An ImageFolder without hidden folders, such as .ipynb_checkpoints."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Lists the folders of classes, and their indices in alphabetical order.

        Raises:
            ValueError: if there are less than two.
        """
        names = sorted(entry.name for entry in Path(directory).iterdir() if entry.is_dir())
        classes = [name for name in names if not name.startswith(".")]
        if len(classes) < 2:
            found = repr(classes[0]) if classes else "none"
            raise ValueError(f"{directory}: expected a folder for each of at least two classes, got {found}")
        return classes, {name: index for index, name in enumerate(classes)}


def _is_visible_image(folder: Path, path: str) -> bool:
    """Returns whether a file has the suffix of an image, and neither its name nor a folder's begins with a dot."""
    file = Path(path)
    return file.suffix.lower() in IMAGE_SUFFIXES and not any(
        part.startswith(".") for part in file.relative_to(folder).parts
    )


class ClassifierTrainDataset(Dataset[dict[str, Any]]):
    """Randomly cropped and flipped images; a sample depends on (seed, epoch, index) alone.

    A sample is a dict of `image` (3, S, S) uint8 RGB, `label`, `weight`, which is False for padding, and `index`.

    Args:
        images: the images.
        size: side S of the crops in pixels.
        augment: the parameters of the augmentation.
        seed: seed of the augmentation.
    """

    def __init__(self, images: LabeledImages, size: int, augment: ClassifierAugmentConfig, seed: int) -> None:
        self.images = images
        self._seed = seed
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=augment.scale, antialias=True),
                v2.RandomHorizontalFlip(augment.flip_probability),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, sample: SampleIndex) -> dict[str, Any]:
        image = _to_tensor(read_image(self.images.paths[sample.index]))
        with torch.random.fork_rng(devices=[]):
            # torchvision draws from torch's global generator
            seeds = np.random.SeedSequence((self._seed, sample.epoch, sample.index))
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
            crop = self._transform(image)
        label = self.images.labels[sample.index]
        return {"image": crop, "label": label, "weight": not sample.is_padding, "index": sample.index}


class ClassifierEvalDataset(Dataset[dict[str, Any]]):
    """The central crops of resized images: dicts of `image` (3, S, S) uint8 RGB and `label`.

    Args:
        images: the images.
        size: side S of the crops in pixels.
        resize: shorter side of the resized image relative to S.
    """

    def __init__(self, images: LabeledImages, size: int, resize: float) -> None:
        self.images = images
        self._transform = v2.Compose([v2.Resize(round(resize * size), antialias=True), v2.CenterCrop(size)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._transform(_to_tensor(read_image(self.images.paths[index])))
        return {"image": image, "label": self.images.labels[index]}


def _to_tensor(image: NDArray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)
