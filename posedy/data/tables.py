"""Tables of a COCO keypoint file: arrays and one buffer of names, which worker processes share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posedy.data.columns import BoolArray
from posedy.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class PackedNames:
    """Many strings in one buffer: a list of str would be copied by every worker process as it is read.

    Attributes:
        buffer: the UTF-8 bytes of all strings joined.
        offsets: (N + 1,) int64, where each string starts in it.
    """

    buffer: bytes
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, names: list[str]) -> "PackedNames":
        """Joins strings."""
        encoded = [name.encode() for name in names]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        return self.buffer[self.offsets[index] : self.offsets[index + 1]].decode()


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The I images of a file: ids (I,), sizes (I, 2) as (width, height), (0, 0) where unknown, and file names."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    names: PackedNames


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """The A annotations of the keypoint category.

    Attributes:
        ids: (A,).
        image_index: (A,) index of the image, -1 where the file has no such image.
        boxes: (A, 4) xywh as in the file.
        areas: (A,).
        crowd: (A,).
        num_keypoints: (A,) as the file says, -1 where it does not.
        keypoints: (A, K, 3) of x, y, v.
        sound: (A,) whether every part is there and of the right type; parts that are not hold NaN or 0.
    """

    ids: NDArray[np.int64]
    image_index: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: BoolArray
    num_keypoints: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    sound: BoolArray


@dataclass(frozen=True, eq=False)
class CocoTables:
    """A COCO keypoint file as arrays; `other_category` annotations have no keypoints to offer and are not in it."""

    skeleton: Skeleton
    category_id: int
    images: ImageTable
    annotations: AnnotationTable
    other_category: int

    def describe(self, annotation: int) -> str:
        """Names an annotation by its id and photo."""
        image = self.annotations.image_index[annotation]
        where = f" of {self.images.names[image]}" if image >= 0 else ""
        return f"annotation {self.annotations.ids[annotation]}{where}"
