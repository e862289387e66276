"""The file formats of bulk prediction: the content of a unit's file."""

import importlib.metadata
import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posedy.poses import Poses
from posedy.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The poses of an image of the input.

    Attributes:
        image: its name.
        width: width in upright pixels.
        height: height in upright pixels.
        poses: the poses.
    """

    image: str
    width: int
    height: int
    poses: Poses

    @property
    def text_name(self) -> str:
        """The name as valid text: bytes of a file name that are not UTF-8 are escaped."""
        return as_text(self.image)


def as_text(name: str) -> str:
    """Returns a name as valid text: bytes of a file name that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class PartFormat:
    """A file format in which bulk prediction writes its results.

    Attributes:
        suffix: the suffix of its files.
        encode: returns the content of a file: of the results of a unit, the skeleton and the model's name.
        requires: the module that it needs, with pip's name; None for none.
    """

    suffix: str
    encode: Callable[[Sequence[ImageResult], Skeleton, str], bytes]
    requires: str | None = None

    def check_installed(self) -> None:
        """Checks that the format's library is installed.

        Raises:
            ValueError: if it is not.
        """
        if self.requires is not None and importlib.util.find_spec(self.requires) is None:
            raise ValueError(
                f"--format {self.suffix[1:]} needs {self.requires}: pip install {self.requires}, or choose jsonl"
            )


def columns_of(results: Sequence[ImageResult], skeleton: Skeleton, model: str) -> dict[str, Any]:
    """Returns Arrow arrays with a row for each image: the columns of Parquet files.

    They are image, width, height, boxes (P, 4) xyxy, box_scores (P,), keypoints (P, K, 2), scores (P, K), model and
    version, with boxes and keypoints in upright pixels of the image, float32.
    """
    import pyarrow as pa

    def nested(values: list[np.ndarray], *shape: int) -> Any:
        """Returns a list array with an element for each person, of the shape."""
        offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
        array = pa.array(np.concatenate([np.zeros((0, *shape), np.float32), *values]).ravel(), pa.float32())
        for size in reversed(shape):
            array = pa.FixedSizeListArray.from_arrays(array, size)
        return pa.ListArray.from_arrays(pa.array(offsets), array)

    poses, num_keypoints = [result.poses for result in results], skeleton.num_keypoints
    constant = {"model": model, "version": _version()}
    return {
        "image": pa.array([result.text_name for result in results], pa.string()),
        "width": pa.array([result.width for result in results], pa.int32()),
        "height": pa.array([result.height for result in results], pa.int32()),
        "boxes": nested([each.boxes for each in poses], 4),
        "box_scores": nested([each.box_scores for each in poses]),
        "keypoints": nested([each.keypoints for each in poses], num_keypoints, 2),
        "scores": nested([each.scores for each in poses], num_keypoints),
        **{name: pa.array([value] * len(results), pa.string()) for name, value in constant.items()},
    }


def _version() -> str:
    return importlib.metadata.version("posedy")


def _encode_parquet(results: Sequence[ImageResult], skeleton: Skeleton, model: str) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(columns_of(results, skeleton, model))
    table = table.replace_schema_metadata({"keypoints": json.dumps(list(skeleton.keypoints))})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _encode_jsonl(results: Sequence[ImageResult], skeleton: Skeleton, model: str) -> bytes:
    lines = [
        {
            "image": result.text_name,
            "width": result.width,
            "height": result.height,
            "persons": result.poses.to_records(),
            "model": model,
            "version": _version(),
        }
        for result in results
    ]
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()


def _encode_coco(results: Sequence[ImageResult], skeleton: Skeleton, model: str) -> bytes:
    # image ids of COCO are known to annotation files only: the name is the id
    records = [record for result in results for record in result.poses.to_coco(result.text_name)]
    return json.dumps(records, allow_nan=False).encode()


FORMATS = {
    "parquet": PartFormat(".parquet", _encode_parquet, "pyarrow"),
    "jsonl": PartFormat(".jsonl", _encode_jsonl),
    "coco": PartFormat(".json", _encode_coco),
}
"""The formats by name."""
