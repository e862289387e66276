"""Who is who from frame to frame: poses get the id of the person whose last pose, moved on, is most like them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posedy.evaluation.oks import oks_matrix
from posedy.geometry import box_iou

_PATIENCE = 3.0
_INERTIA = 0.6  # of a person's velocity, from frame to frame
_STEADY = 1.0  # seconds for which a person who is not seen is thought to keep the velocity


@dataclass(eq=False)
class _Person:
    id: int
    time: float
    keypoints: NDArray[np.float64]
    box: NDArray[np.float64]
    velocity: NDArray[np.float64]
    unseen: bool = False  # in the last frame

    def at(self, time: float) -> NDArray[np.float64]:
        """How far (2,) the person has moved since it was seen, at a steady velocity for a while."""
        return self.velocity * min(time - self.time, _STEADY)


class Identities:
    """Gives the poses of successive frames ids that stay with persons.

    Each person known is moved on at its last velocity; then the most similar pair of a person and a pose is joined, and
    so on (greedy), where similarity is OKS with the larger of the boxes' areas, or half the IoU of the boxes, which
    still sees persons whose pose is wrong. A pose that is left over joins who has been hidden and can have come there,
    at a height a second; one that joins nobody is a new person. Ids count from 1 and are never given twice.

    Args:
        sigmas: (K,) of the skeleton.
        least: the similarity from which a pose may be a known person.
        patience: seconds for which a person who is not seen is remembered, at least until the frame after.
    """

    def __init__(self, sigmas: NDArray[np.float64], least: float = 0.15, patience: float = _PATIENCE) -> None:
        self._sigmas = np.asarray(sigmas, dtype=np.float64)
        self._least, self._patience = least, patience
        self._persons: list[_Person] = []
        self._next = 1

    def __call__(self, keypoints: NDArray, boxes: NDArray, time: float) -> NDArray[np.int64]:
        """The ids (P,) of P poses (P, K, 2) with boxes (P, 4) xyxy, in image pixels, at a time in seconds."""
        self._persons = [
            person for person in self._persons if not person.unseen or time - person.time <= self._patience
        ]
        hidden = np.array([person.unseen for person in self._persons], dtype=bool)
        for remembered in self._persons:
            remembered.unseen = True
        keypoints, boxes = np.asarray(keypoints, dtype=np.float64), np.asarray(boxes, dtype=np.float64)
        ids = np.zeros(len(keypoints), dtype=np.int64)
        similarity = self._similarity(keypoints, boxes, time, hidden)
        known = list(self._persons)
        while similarity.size and similarity.max() >= self._least:
            person, pose = np.unravel_index(similarity.argmax(), similarity.shape)
            ids[pose] = known[person].id
            _update(known[person], keypoints[pose], boxes[pose], time)
            similarity[person], similarity[:, pose] = -1, -1
        for pose in np.flatnonzero(ids == 0):
            ids[pose], self._next = self._next, self._next + 1
            self._persons.append(_Person(int(ids[pose]), time, keypoints[pose], boxes[pose], np.zeros(2)))
        return ids

    def _similarity(
        self, keypoints: NDArray[np.float64], boxes: NDArray[np.float64], time: float, hidden: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """(known persons, poses); of those who can have come there a little over the least."""
        if not self._persons or not len(keypoints):
            return np.zeros((0, 0))
        moved = [person.at(time) for person in self._persons]
        expected = np.stack([person.keypoints + step for person, step in zip(self._persons, moved, strict=True)])
        places = np.stack([person.box + np.tile(step, 2) for person, step in zip(self._persons, moved, strict=True)])
        everyone, frames = np.concatenate([expected, keypoints]), np.concatenate([places, boxes])
        areas = (frames[:, 2:] - frames[:, :2]).prod(axis=1)
        oks = oks_matrix(everyone, areas, self._sigmas)[: len(expected), len(expected) :]
        similarity = np.maximum(oks, box_iou(places, boxes) / 2)
        gone = np.array([time - person.time for person in self._persons])
        reach = (places[:, 2:] - places[:, :2]).max(axis=1) * (0.5 + gone)
        way = np.linalg.norm(_centres(places)[:, None] - _centres(boxes), axis=-1) / reach[:, None]
        can_be = hidden[:, None] & (way < 1)
        return np.where(can_be, np.maximum(similarity, self._least + 0.01 * (1 - way)), similarity)


def _centres(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _update(person: _Person, keypoints: NDArray[np.float64], box: NDArray[np.float64], time: float) -> None:
    dt = time - person.time
    if dt > 0:
        velocity = np.median(keypoints - person.keypoints, axis=0) / dt
        person.velocity = _INERTIA * person.velocity + (1 - _INERTIA) * velocity
    person.time, person.keypoints, person.box, person.unseen = time, keypoints, box, False
