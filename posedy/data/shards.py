"""Training samples in WebDataset shards: tar files of person images with their annotations, and their index.

A shard has two members for each person, KEY.jpg and KEY.json, the person's annotation record in pixels of that image.
`index.json` has the size of each sample, so that a sample is read at its position without reading those before it: any
process can read any sample, and training resumes at any batch. The order of samples is the batch sampler's; it reads
few shards at a time (`shuffle_shards`). `python -m tools.lab.person_shards` writes shards and index.
"""

import hashlib
import json
import os
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posedy.config import AugmentConfig, SkeletonConfig
from posedy.data.categories import read_keypoint_category, read_skeleton
from posedy.data.coco_file import CocoFile
from posedy.data.datasets import AugmentedCropDataset, TrainPerson
from posedy.data.issues import IssueLog
from posedy.files import read_bytes
from posedy.geometry import FloatArray, xywh_to_xyxy
from posedy.images import decode_image

INDEX_FILE = "index.json"
BLOCK = tarfile.BLOCKSIZE
"""Number of bytes of a block of a tar file: headers and padded contents are multiples of it."""

_WRITE_AGAIN = "copy the folder again, or write it with python -m tools.lab.person_shards"
# The shuffle buffer touches up to 18 shards of equal size at a time.
_MAX_OPEN_FILES = 32


class Shard(BaseModel):
    """The file name, sample sizes and hash of a shard, as the index lists them.

    Attributes:
        name: the file name, in the folder of the index.
        num_samples: number of samples.
        num_bytes: size of the file.
        blocks: size of each sample in tar blocks, in the order of the file.
        sha256: hash of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[\w-][\w.-]*$")
    num_samples: int = Field(ge=1)
    num_bytes: int
    blocks: list[int]
    sha256: str

    @model_validator(mode="after")
    def _check_blocks(self) -> "Shard":
        if len(self.blocks) != self.num_samples:
            raise ValueError(f"expected the sizes of {self.num_samples} samples, got {len(self.blocks)}")
        if min(self.blocks) < 1 or sum(self.blocks) * BLOCK > self.num_bytes:
            raise ValueError(
                f"expected samples within {self.num_bytes} bytes, got {sum(self.blocks)} blocks of {BLOCK}"
            )
        return self


class ShardIndex(BaseModel):
    """The index of a folder of shards: the files, the keypoint category and the crop size.

    Attributes:
        format: the version of the format.
        description: what the shards contain.
        category: the COCO category with the keypoints.
        input_size: (W, H) of the crops that the images are made for.
        padding: factor on the size of the boxes that the images are made for.
        shards: the shards.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["posedy-person-shards-1"] = "posedy-person-shards-1"
    description: str
    category: dict[str, Any]
    input_size: tuple[int, int]
    padding: float
    shards: list[Shard] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> "ShardIndex":
        """Reads an index file.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is not a valid index.
        """
        try:
            return cls.model_validate_json(read_bytes(path))
        except ValidationError as error:
            first = error.errors()[0]
            reason = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
            raise ValueError(f"{path} is not an index of person shards ({reason}): {_WRITE_AGAIN}") from None

    @property
    def num_samples(self) -> int:
        """The number of samples of all shards."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """A hash of the category and of the content of all shards, independent of their folder."""
        parts = [json.dumps(self.category, sort_keys=True), *(shard.sha256 for shard in self.shards)]
        return f"{self.num_samples} persons, {hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}"


class ShardTrainDataset(AugmentedCropDataset):
    """Randomly augmented crops of the persons in a folder of shards.

    Only the sizes of samples are kept in memory, 12 bytes for each. A shard is opened when a sample of it is read
    first, and the system is then advised to read the whole file ahead.

    Args:
        path: the folder, or the index file in it.
        input_size: (W, H) of the crops.
        augment: the parameters of the augmentation.
        padding: factor on the size of the boxes.
        seed: seed of the augmentation.
        overrides: properties of the skeleton that override the category's.

    Attributes:
        warnings: warnings about the shards and their skeleton.

    Raises:
        OSError: if the index cannot be read, or a shard is missing or has another size than in the index.
        ValueError: if the index is invalid.
    """

    def __init__(
        self,
        path: Path,
        input_size: tuple[int, int],
        augment: AugmentConfig,
        padding: float,
        seed: int,
        overrides: SkeletonConfig | None = None,
    ) -> None:
        source = path / INDEX_FILE if path.is_dir() else path
        if not source.is_file():
            raise FileNotFoundError(
                f"no file at {source.absolute()}: expected a folder of python -m tools.lab.person_shards, whose "
                f"{INDEX_FILE} is written last"
            )
        index, log = ShardIndex.read(source), IssueLog()
        file = CocoFile(str(source), images=[], annotations=[], categories=[index.category])
        category = read_keypoint_category(file, log)
        skeleton = read_skeleton(category, overrides, log) if category is not None else None
        log.raise_errors(str(source))
        assert skeleton is not None
        super().__init__(source, skeleton, input_size, augment, padding, seed)
        _check_sizes(source, index.shards)
        self.warnings = [*map(str, log.issues)]
        if padding > index.padding or any(now > then for now, then in zip(input_size, index.input_size, strict=True)):
            self.warnings.append(
                f"warning: {source} was written for crops of {_format_size(index.input_size)} with padding "
                f"{index.padding:g}, got {_format_size(input_size)} with padding {padding:g}: crops are blurred or "
                "have black borders; write the shards for this size"
            )
        self.shard_sizes = np.array([shard.num_samples for shard in index.shards])
        self._fingerprint, self._description = index.fingerprint, index.description
        self._paths = [source.parent / shard.name for shard in index.shards]
        self._ends = np.cumsum(self.shard_sizes)
        self._positions = np.concatenate(
            [(np.cumsum(shard.blocks) - shard.blocks) * BLOCK for shard in index.shards], dtype=np.int64
        )
        self._num_bytes = np.concatenate([np.array(shard.blocks) * BLOCK for shard in index.shards], dtype=np.int32)
        self._files = _OpenFiles()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def fingerprint(self) -> str:
        """A hash of the category and of the content of all shards, independent of their folder."""
        return self._fingerprint

    def summary(self) -> str:
        """Summarizes in one line the persons and the shards."""
        return f"{self.source}: {self._description}, {len(self)} persons in {len(self._paths)} shards"

    def _persons(self, indices: Sequence[int]) -> list[TrainPerson]:
        samples = [self._read_sample(index) for index in indices]
        boxes = xywh_to_xyxy([box for _, box, _, _ in samples]).astype(np.float32)
        regions = zip(*self._padded_regions(boxes), strict=True)
        return [
            TrainPerson(annotation_id, center, size, pose, read)
            for (annotation_id, _, pose, read), (center, size) in zip(samples, regions, strict=True)
        ]

    def _read_sample(self, index: int) -> tuple[int, FloatArray, NDArray[np.float32], Callable[[], NDArray[np.uint8]]]:
        """Reads a sample: annotation id, box (4,) xywh, pose (K, 3), and a function that decodes the image."""
        path = self._paths[int(np.searchsorted(self._ends, index, side="right"))]
        position, count = int(self._positions[index]), self.skeleton.num_keypoints
        content = self._files.read(path, position, int(self._num_bytes[index]))
        try:
            key, jpeg, record = _split_members(content)
            annotation_id, box = int(record["id"]), np.array(record["bbox"], dtype=np.float64).reshape(4)
            pose = np.array(record["keypoints"], dtype=np.float64).reshape(count, 3).astype(np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, byte {position}: expected KEY.jpg and KEY.json with id, bbox and {count} keypoints, as in "
                f"{self.source}, got {type(error).__name__}: {error}; {_WRITE_AGAIN}"
            ) from error
        return annotation_id, box, pose, partial(decode_image, jpeg, f"{key}.jpg of {path}")


def _check_sizes(source: Path, shards: Sequence[Shard]) -> None:
    """Checks that all shards exist and have the size of the index.

    Raises:
        OSError: if not; the message names the first ones.
    """
    wrong = []
    for shard in shards:
        path = source.parent / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size != shard.num_bytes:
            got = "is missing" if size is None else f"has {size} bytes"
            wrong.append(f"{shard.name} {got}, expected {shard.num_bytes} bytes")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise OSError(
            f"{source}: {len(wrong)} of {len(shards)} shards differ from the index: {'; '.join(wrong[:3])}{more}; "
            f"{_WRITE_AGAIN}"
        )


def _split_members(content: bytes) -> tuple[str, bytes, dict[str, Any]]:
    """Splits the tar members of a sample; `tarfile` takes ten times as long for their headers.

    Returns:
        The key, the JPEG file and the annotation record.

    Raises:
        ValueError: if the members are not KEY.jpg and KEY.json.
    """
    members: dict[str, bytes] = {}
    position = 0
    while position < len(content):
        header = content[position : position + BLOCK]
        if header[257:262] != b"ustar":
            raise ValueError(f"no tar header at byte {position} of the sample")
        name, size = header[:100].rstrip(b"\0").decode(), int(header[124:136].rstrip(b"\0 "), 8)
        position += BLOCK
        members[name] = content[position : position + size]
        position += -(-size // BLOCK) * BLOCK
    key = next(iter(members)).rpartition(".")[0]
    if position != len(content) or list(members) != [f"{key}.jpg", f"{key}.json"]:
        raise ValueError(f"members {', '.join(members)} of {position} bytes")
    return key, members[f"{key}.jpg"], json.loads(members[f"{key}.json"])


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


class _OpenFiles:
    """Reads parts of files, of which the last used ones stay open. Each process that unpickles it has its own."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, BinaryIO] = OrderedDict()

    def __reduce__(self) -> tuple[type["_OpenFiles"], tuple[()]]:
        return _OpenFiles, ()

    def read(self, path: Path, position: int, size: int) -> bytes:
        """Reads `size` bytes from a position of a file.

        Raises:
            OSError: if the file cannot be read or ends before.
        """
        try:
            file = self._files.pop(path, None) or self._open(path)
            self._files[path] = file
            if sys.platform == "win32":
                file.seek(position)
                content = file.read(size)
            else:  # forked workers share the position of an open file, which pread does not use
                content = os.pread(file.fileno(), size, position)
        except OSError as error:
            raise OSError(f"shard {path} cannot be read ({error.strerror}): check its path and disk") from error
        if len(content) != size:
            raise OSError(f"shard {path} ends within the sample at byte {position}: {_WRITE_AGAIN}")
        return content

    def _open(self, path: Path) -> BinaryIO:
        if len(self._files) >= _MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        file = path.open("rb", buffering=0)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        return file
