"""The poses of one image, and their conversion to COCO results, tables and drawings."""

import csv
import inspect
import io
import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from posedy.drawing import DRAW_THRESHOLD, draw_poses
from posedy.files import write_bytes_atomically
from posedy.geometry import xyxy_to_xywh
from posedy.images import ChannelOrder, ImageLike, from_rgb, to_rgb
from posedy.oks import rescore
from posedy.skeleton import Skeleton

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_COLUMNS = ("person", "person_score", "keypoint", "x", "y", "score")


def format_count(number: int, noun: str) -> str:
    """Returns "1 frame", "2 frames" and so on, for nouns whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def count_persons(number: int) -> str:
    """Returns "1 person", "2 persons" and so on."""
    return format_count(number, "person")


@dataclass(frozen=True, eq=False)
class Pose:
    """The pose of one person.

    Attributes:
        keypoints: (K, 2) float32 in image pixels.
        scores: (K,) float32, the confidence of each keypoint.
        box: (4,) float32 xyxy in image pixels.
        box_score: the confidence of the box.
        score: the pose score: box score times the mean of the keypoint scores over 0.2.
        track_id: the id of the person over time; None for images.
        skeleton: the skeleton of the K keypoints.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    box: NDArray[np.float32]
    box_score: float
    score: float
    track_id: int | None
    skeleton: Skeleton


@dataclass(frozen=True, eq=False)
class Poses:
    """The poses of the P persons of one image.

        len(poses)                 # P
        for pose in poses: ...     # a Pose each
        poses[0], poses[1:]        # a Pose, Poses

    Attributes:
        keypoints: (P, K, 2) float32 in image pixels.
        scores: (P, K) float32, the confidence of each keypoint, about 1 for a clear one; see the codecs' `decode`.
        boxes: (P, 4) float32 xyxy in image pixels.
        box_scores: (P,) float32.
        skeleton: the skeleton of the K keypoints.
        channels: the channel order of the arrays that the estimator was called with; `draw` uses it as default.
        track_ids: (P,) int64, the ids of the persons over time; None for images.
        time: the time of the frame in seconds from the beginning of the video; None for images.
        frame: the number of the frame in the video from 0, with damaged frames counted; None for images, and where
            only times are known, as in `PoseTracker`.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    skeleton: Skeleton
    channels: ChannelOrder = "bgr"
    track_ids: NDArray[np.int64] | None = None
    time: float | None = None
    frame: int | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def __repr__(self) -> str:
        ids = "" if self.track_ids is None else f", track_ids={self.track_ids.tolist()}"
        time = "" if self.time is None else f", time={self.time:g}"
        return f"Poses({count_persons(len(self))}, {self.skeleton.num_keypoints} keypoints{ids}{time})"

    @overload
    def __getitem__(self, index: int) -> Pose: ...

    @overload
    def __getitem__(self, index: "slice | list[int] | NDArray[Any]") -> "Poses": ...

    def __getitem__(self, index: "int | slice | list[int] | NDArray[Any]") -> "Pose | Poses":
        """Returns one pose, or the poses of a slice, of indices or of a boolean mask (P,).

        Raises:
            IndexError: if an index is out of range, or a mask has the wrong length.
        """
        if not isinstance(index, slice):
            array = np.asarray(index)
            if array.shape == (0,) and array.dtype.kind == "f":  # an empty list
                array = array.astype(np.int64)
            if array.ndim > 1 or array.dtype.kind not in "iub" or (array.ndim == 0 and array.dtype.kind == "b"):
                raise IndexError(
                    f"expected an index, a slice, indices (N,) or a boolean mask ({len(self)},), got {index!r:.100}"
                )
            index = array if array.ndim else int(array)
        if isinstance(index, int):
            return Pose(
                self.keypoints[index],
                self.scores[index],
                self.boxes[index],
                float(self.box_scores[index]),
                float(self.pose_scores[index]),
                int(self.track_ids[index]) if self.track_ids is not None else None,
                self.skeleton,
            )
        return replace(
            self,
            keypoints=self.keypoints[index],
            scores=self.scores[index],
            boxes=self.boxes[index],
            box_scores=self.box_scores[index],
            track_ids=self.track_ids[index] if self.track_ids is not None else None,
        )

    def __iter__(self) -> Iterator[Pose]:
        return (self[index] for index in range(len(self)))

    @property
    def pose_scores(self) -> NDArray[np.float64]:
        """The scores (P,) that rank the poses: box score times the mean of the keypoint scores over 0.2."""
        return rescore(self.box_scores, self.scores)

    def to_coco(self, image_id: int | str, category_id: int | str = 1) -> list[dict[str, Any]]:
        """Returns the poses as P COCO keypoint results, for `posedy eval` and COCOeval.

        Args:
            image_id: the id of the image in the annotation file, an integer or text.
            category_id: the id of the category with keypoints, 1 in COCO's files.

        Raises:
            TypeError: if an id is neither an integer nor text.
            ValueError: if a coordinate or a score is not finite.
        """
        return to_coco_results(image_id, self.keypoints, self.scores, self.pose_scores, category_id)

    def to_records(self) -> list[dict[str, Any]]:
        """Returns the poses as P dictionaries of Python numbers, with keypoints by name.

        Pixels are rounded to 0.01, scores to 0.0001. With track ids each record begins with `id`.
        """
        records: list[dict[str, Any]] = []
        for pose in self:
            record: dict[str, Any] = {} if pose.track_id is None else {"id": pose.track_id}
            record |= {
                "score": round(pose.score, 4),
                "box_xyxy": [round(float(side), 2) for side in pose.box],
                "box_score": round(pose.box_score, 4),
                "keypoints": {
                    name: {"x": round(float(x), 2), "y": round(float(y), 2), "score": round(float(score), 4)}
                    for name, (x, y), score in zip(self.skeleton.keypoints, pose.keypoints, pose.scores, strict=True)
                },
            }
            records.append(record)
        return records

    def to_dataframe(self) -> "pd.DataFrame":
        """Returns the poses as a pandas table with a row for each keypoint of each person, as `to_csv`.

        Raises:
            ImportError: if pandas is not installed.
        """
        import pandas as pd

        columns = [*(["track_id"] if self.track_ids is not None else []), *_COLUMNS]
        table = pd.DataFrame.from_records(self._rows(), columns=columns)
        if not len(self):  # the columns of no rows would have no numeric types, nor a concatenation with other tables
            types = {"track_id": "int64", "person": "int64", "keypoint": "object"}
            table = table.astype({column: types.get(column, "float64") for column in columns})
        return table

    def to_supervision(self) -> Any:
        """Returns the poses as `supervision.KeyPoints`, with the pose scores as confidence of the detections.

        Raises:
            ImportError: if supervision is not installed.
        """
        import supervision

        fields = inspect.signature(supervision.KeyPoints).parameters
        scores: dict[str, Any] = {"confidence": self.scores}
        if "keypoint_confidence" in fields:  # since supervision 0.29
            scores = {"keypoint_confidence": self.scores, "detection_confidence": self.pose_scores.astype(np.float32)}
        return supervision.KeyPoints(xy=self.keypoints, **scores)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Returns the poses as a CSV table with a row for each keypoint of each person, and writes it to a file.

        Pixels are rounded to 0.01, scores to 0.0001. Rows end with a line feed; keypoint names with commas, quotes or
        line breaks are quoted. With track ids there is a first column `track_id`.

        Args:
            path: the file, written atomically; None writes none.

        Raises:
            OSError: if the file cannot be written.
        """
        header = (*(("track_id",) if self.track_ids is not None else ()), *_COLUMNS)
        text = "".join(map(_csv_row, [header, *self._rows()]))
        if path is not None:
            write_bytes_atomically(Path(path), text.encode())
        return text

    def _rows(self) -> list[tuple[Any, ...]]:
        return [
            (
                *((record["id"],) if "id" in record else ()),
                *(number, record["score"], name, point["x"], point["y"], point["score"]),
            )
            for number, record in enumerate(self.to_records())
            for name, point in record["keypoints"].items()
        ]

    @overload
    def draw(
        self,
        image: Image.Image,
        threshold: float = ...,
        boxes: bool = ...,
        channels: ChannelOrder | None = ...,
    ) -> Image.Image: ...

    @overload
    def draw(
        self,
        image: "Tensor",
        threshold: float = ...,
        boxes: bool = ...,
        channels: ChannelOrder | None = ...,
    ) -> "Tensor": ...

    @overload
    def draw(
        self,
        image: str | os.PathLike[str] | NDArray[np.uint8],
        threshold: float = ...,
        boxes: bool = ...,
        channels: ChannelOrder | None = ...,
    ) -> NDArray[np.uint8]: ...

    def draw(
        self,
        image: ImageLike,
        threshold: float = DRAW_THRESHOLD,
        boxes: bool = False,
        channels: ChannelOrder | None = None,
    ) -> "NDArray[np.uint8] | Image.Image | Tensor":
        """Draws the poses on a copy of their image.

        Args:
            image: any kind of image that the estimator takes except a URL; it is not changed.
            threshold: keypoints with scores up to this one are drawn faint.
            boxes: whether to draw the boxes, too.
            channels: the order of an array's channels; None is the order that the estimator was called with.

        Returns:
            An image of the given kind: (H, W, 3) uint8 in the same channel order for an array, a PIL image of mode RGB
            for a PIL image, (3, H, W) uint8 RGB for a tensor, and (H, W, 3) uint8 BGR, for `cv2.imwrite`, for a path.

        Raises:
            OSError, TypeError, ValueError: as for the estimator.
        """
        order = self.channels if channels is None else channels
        frames = self.boxes if boxes else None
        drawn = draw_poses(to_rgb(image, order), self.keypoints, self.scores, self.skeleton, frames, threshold)
        return from_rgb(drawn, image, order)


def _csv_row(fields: tuple[Any, ...]) -> str:
    buffer = io.StringIO(newline="")
    # with "\n" as the end of rows, Python before 3.13 would not quote a carriage return
    csv.writer(buffer, lineterminator="\r\n").writerow(fields)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def to_coco_results(
    image_id: int | str,
    keypoints: ArrayLike,
    keypoint_scores: ArrayLike,
    scores: ArrayLike,
    category_id: int | str = 1,
    boxes: ArrayLike | None = None,
) -> list[dict[str, Any]]:
    """Converts the poses of one image to COCO keypoint results, in full float precision.

    Args:
        image_id: the id of the image in the annotation file, an integer or text.
        keypoints: (P, K, 2) in image pixels.
        keypoint_scores: (P, K), written in place of the visibility.
        scores: (P,) scores by which COCOeval ranks the poses.
        category_id: the id of the annotation file's category with keypoints.
        boxes: (P, 4) xyxy in image pixels, written as `bbox` (xywh). COCOeval then takes a pose's size from its box
            instead of the extent of its keypoints, which changes APm and APl: published results have no boxes.

    Returns:
        P records with Python numbers.

    Raises:
        TypeError: if an id is neither an integer nor text.
        ValueError: if shapes do not match or a number is not finite; the message names the pose.
    """
    image_id, category_id = _check_id("image_id", image_id), _check_id("category_id", category_id)
    keypoints, keypoint_scores, scores = (
        np.asarray(value, dtype=np.float64) for value in (keypoints, keypoint_scores, scores)
    )
    if keypoints.ndim != 3 or keypoints.shape[2] != 2:
        raise ValueError(f"expected keypoints of shape (P, K, 2), got {keypoints.shape}")
    if keypoint_scores.shape != keypoints.shape[:2] or scores.shape != keypoints.shape[:1]:
        raise ValueError(
            f"expected keypoint scores of shape {keypoints.shape[:2]} and scores of shape {keypoints.shape[:1]} for "
            f"keypoints of shape {keypoints.shape}, got {keypoint_scores.shape} and {scores.shape}"
        )
    rows = np.concatenate(
        [keypoints.reshape(len(keypoints), 2 * keypoints.shape[1]), keypoint_scores, scores[:, None]], axis=1
    )
    for index in np.flatnonzero(~np.isfinite(rows).all(axis=1)):
        raise ValueError(f"image {image_id}: pose {index} has a coordinate or a score that is not finite")
    triplets = np.concatenate([keypoints, keypoint_scores[..., None]], axis=-1).reshape(
        len(keypoints), 3 * keypoints.shape[1]
    )
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_id, "keypoints": triplet, "score": score}
        for triplet, score in zip(triplets.tolist(), scores.tolist(), strict=True)
    ]
    if boxes is not None:
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.shape != (len(keypoints), 4):
            raise ValueError(f"expected boxes of shape ({len(keypoints)}, 4), got {boxes.shape}")
        for result, box in zip(results, xyxy_to_xywh(boxes).tolist(), strict=True):
            result["bbox"] = box
    return results


def _check_id(name: str, value: Any) -> int | str:
    """Returns an id as a Python integer or string; TypeError for other types."""
    if isinstance(value, str):
        return str(value)  # of subclasses such as numpy.str_
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer or text, as in the annotation file, got {value!r:.100}")
    return operator.index(value)
