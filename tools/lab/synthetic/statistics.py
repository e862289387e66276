"""Statistics of a synthetic dataset."""

from dataclasses import dataclass

import numpy as np

from posedy.geometry import box_iou, xywh_to_xyxy
from tools.lab.synthetic.annotation import SyntheticImage

NEIGHBOR_IOU = 0.1


@dataclass(frozen=True)
class DatasetStatistics:
    """Counts of a split; persons are annotations with keypoints.

    Attributes:
        images: number of images.
        persons: annotations with a labeled keypoint, without crowds.
        unlabeled: annotations without a labeled keypoint, without crowds.
        crowds: crowd annotations.
        back_views: persons seen from behind.
        with_neighbor: persons whose box overlaps another person's with an IoU above 0.1.
        labeled_keypoints: keypoints with v > 0.
        occluded_keypoints: keypoints with v = 1.
    """

    images: int = 0
    persons: int = 0
    unlabeled: int = 0
    crowds: int = 0
    back_views: int = 0
    with_neighbor: int = 0
    labeled_keypoints: int = 0
    occluded_keypoints: int = 0

    def __add__(self, other: "DatasetStatistics") -> "DatasetStatistics":
        return DatasetStatistics(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def back_view_fraction(self) -> float:
        """Fraction of persons seen from behind."""
        return self.back_views / max(self.persons, 1)

    @property
    def neighbor_fraction(self) -> float:
        """Fraction of persons whose box overlaps another person's."""
        return self.with_neighbor / max(self.persons, 1)

    @property
    def occluded_fraction(self) -> float:
        """Fraction of labeled keypoints that are occluded."""
        return self.occluded_keypoints / max(self.labeled_keypoints, 1)

    @classmethod
    def from_image(cls, image: SyntheticImage) -> "DatasetStatistics":
        """Counts the annotations of one image."""
        is_person = [not record["iscrowd"] and record["num_keypoints"] > 0 for record in image.annotations]
        persons = [record for record, keep in zip(image.annotations, is_person, strict=True) if keep]
        crowds = sum(record["iscrowd"] for record in image.annotations)
        boxes = xywh_to_xyxy(np.array([record["bbox"] for record in persons]).reshape(-1, 4))
        overlaps = box_iou(boxes, boxes) - np.eye(len(boxes))
        visibility = np.array([record["keypoints"][2::3] for record in persons])
        return cls(
            images=1,
            persons=len(persons),
            unlabeled=len(image.annotations) - len(persons) - crowds,
            crowds=crowds,
            back_views=sum(behind for behind, keep in zip(image.from_behind, is_person, strict=True) if keep),
            with_neighbor=int((overlaps > NEIGHBOR_IOU).any(axis=1).sum()) if len(boxes) else 0,
            labeled_keypoints=int(np.count_nonzero(visibility > 0)),
            occluded_keypoints=int(np.count_nonzero(visibility == 1)),
        )
