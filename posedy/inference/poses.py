"""The poses of one image."""

import csv
import io
import os
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posedy.data.coco_results import to_coco_results
from posedy.drawing import DRAW_THRESHOLD, draw_poses
from posedy.images import ChannelOrder, ImageLike, from_rgb, to_rgb
from posedy.oks import rescore
from posedy.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class Poses:
    """P poses of one image.

    Attributes:
        keypoints: (P, K, 2) float32 in image pixels.
        scores: (P, K) float32, how sure each keypoint is: the height of its heatmap's peak.
        boxes: (P, 4) float32 xyxy in image pixels.
        box_scores: (P,) float32.
        skeleton: the meaning of the K keypoints.
        channels: the channel order of arrays that the estimator was called with; `draw` uses it as default.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    skeleton: Skeleton
    channels: ChannelOrder = "bgr"

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def pose_scores(self) -> NDArray[np.float64]:
        """(P,) by which poses are ranked: box score times the mean of the keypoint scores over 0.2."""
        return rescore(self.box_scores, self.scores)

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """The poses as P COCO keypoint results, for `posedy eval` and COCOeval.

        Args:
            image_id: the id that the annotation file gives the image.
            category_id: the id of its category with keypoints, 1 in COCO's files.
        """
        return to_coco_results(image_id, self.keypoints, self.scores, self.pose_scores, category_id)

    def to_records(self) -> list[dict[str, Any]]:
        """The poses as P dictionaries of Python numbers, keypoints by name; pixels to 0.01, scores to 0.0001."""
        return [
            {
                "score": round(float(pose_score), 4),
                "box_xyxy": [round(float(side), 2) for side in box],
                "box_score": round(float(box_score), 4),
                "keypoints": {
                    name: {"x": round(float(x), 2), "y": round(float(y), 2), "score": round(float(score), 4)}
                    for name, (x, y), score in zip(self.skeleton.keypoints, points, scores, strict=True)
                },
            }
            for points, scores, box, box_score, pose_score in zip(
                self.keypoints, self.scores, self.boxes, self.box_scores, self.pose_scores, strict=True
            )
        ]

    def to_csv(self) -> str:
        """The poses as a table in CSV, a row for each keypoint of each person: pixels to 0.01, scores to 0.0001.

        Rows end with a line feed; keypoint names with commas, quotes or line breaks are quoted.
        """
        rows: list[tuple[Any, ...]] = [("person", "person_score", "keypoint", "x", "y", "score")]
        for number, record in enumerate(self.to_records()):
            for name, point in record["keypoints"].items():
                rows.append((number, record["score"], name, point["x"], point["y"], point["score"]))
        return "".join(map(_csv_row, rows))

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
    ) -> NDArray[np.uint8] | Image.Image:
        """Draws the poses on a copy of their image.

        Args:
            image: of any kind that the estimator takes. It is not changed.
            threshold: keypoints with scores up to this one are faint.
            boxes: whether to draw the boxes too.
            channels: the order of an array's channels; None is the order that the estimator was called with.

        Returns:
            An image of the kind that was given: (H, W, 3) uint8 in the same channel order for an array, a PIL image of
            mode RGB for a PIL image, and (H, W, 3) uint8 BGR, as `cv2.imwrite` takes it, for a path.

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
