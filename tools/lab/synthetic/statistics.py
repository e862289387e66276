"""How hard a drawn set is, counted from what was drawn."""

from dataclasses import dataclass

import numpy as np

from posedy.geometry import box_iou, xywh_to_xyxy
from tools.lab.synthetic.annotation import Photo

NEIGHBOR_IOU = 0.1


@dataclass(frozen=True)
class DrawnStatistics:
    """Counts over a split; persons are those annotated with keypoints.

    Attributes:
        photos: number of photos.
        persons: annotations that are no crowd and have a labeled keypoint.
        unlabeled: annotations that are no crowd and have none.
        crowds: annotations of groups.
        back_views: persons whose chest faces away from the viewer.
        with_neighbor: persons whose box overlaps another person's with an IoU above 0.1.
        labeled_keypoints: keypoints with v > 0.
        occluded_keypoints: keypoints with v = 1.
    """

    photos: int = 0
    persons: int = 0
    unlabeled: int = 0
    crowds: int = 0
    back_views: int = 0
    with_neighbor: int = 0
    labeled_keypoints: int = 0
    occluded_keypoints: int = 0

    def __add__(self, other: "DrawnStatistics") -> "DrawnStatistics":
        return DrawnStatistics(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def back_view_fraction(self) -> float:
        """Of the persons, those seen from behind."""
        return self.back_views / max(self.persons, 1)

    @property
    def neighbor_fraction(self) -> float:
        """Of the persons, those with a neighbor's box over theirs."""
        return self.with_neighbor / max(self.persons, 1)

    @property
    def occluded_fraction(self) -> float:
        """Of the labeled keypoints, those that are covered."""
        return self.occluded_keypoints / max(self.labeled_keypoints, 1)

    @classmethod
    def of_photo(cls, photo: Photo) -> "DrawnStatistics":
        """The counts of one photo."""
        is_person = [not record["iscrowd"] and record["num_keypoints"] > 0 for record in photo.annotations]
        persons = [record for record, keep in zip(photo.annotations, is_person, strict=True) if keep]
        crowds = sum(record["iscrowd"] for record in photo.annotations)
        boxes = xywh_to_xyxy(np.array([record["bbox"] for record in persons]).reshape(-1, 4))
        overlaps = box_iou(boxes, boxes) - np.eye(len(boxes))
        flags = np.array([record["keypoints"][2::3] for record in persons])
        return cls(
            photos=1,
            persons=len(persons),
            unlabeled=len(photo.annotations) - len(persons) - crowds,
            crowds=crowds,
            back_views=sum(behind for behind, keep in zip(photo.from_behind, is_person, strict=True) if keep),
            with_neighbor=int((overlaps > NEIGHBOR_IOU).any(axis=1).sum()) if len(boxes) else 0,
            labeled_keypoints=int(np.count_nonzero(flags > 0)),
            occluded_keypoints=int(np.count_nonzero(flags == 1)),
        )
