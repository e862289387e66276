"""Association of poses with tracks: by the last pose moved on, and by the colors of clothes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posedy.geometry import box_iou
from posedy.oks import oks_matrix

_PATIENCE = 3.0
_MEMORY = 0.5  # seconds over which a person's velocity is averaged: many frames, since poses that overlap are noisy
_STEADY = 1.0  # seconds for which a person who is not seen is thought to keep the velocity
_HIDES = 0.3  # IoU from which a pose may hide who has vanished there
_OF_POSES = 0.7  # what the poses count for, beside the boxes
_SURE = 0.02  # of the square of the size: how much motion must speak for an exchange
_SURE_OF_COLORS = 15.0  # in L*a*b*: a difference from which colors say more than motion
_COLOR_MEMORY = 2.0  # seconds over which a person's colors are averaged
_ALONE = 0.2  # IoU with another's box up to which a person's colors are their own


@dataclass(frozen=True, eq=False)
class _Motion:
    """Keypoints (K, 2) seen at a time, and the velocity (2,) in pixels a second."""

    time: float
    keypoints: NDArray[np.float64]
    velocity: NDArray[np.float64]

    def way(self, time: float) -> NDArray[np.float64]:
        """How far (2,) it goes until a time, at a steady velocity for a while."""
        return self.velocity * min(time - self.time, _STEADY)

    def at(self, time: float) -> NDArray[np.float64]:
        """The keypoints (K, 2) expected at a time."""
        return self.keypoints + self.way(time)

    def then(self, keypoints: NDArray[np.float64], time: float) -> "_Motion":
        """The motion with what was seen next; the velocity fades with exp(-dt / memory)."""
        dt = time - self.time
        if dt <= 0:
            return _Motion(time, keypoints, self.velocity)
        velocity = np.median(keypoints - self.keypoints, axis=0) / dt
        return _Motion(time, keypoints, velocity + np.exp(-dt / _MEMORY) * (self.velocity - velocity))


@dataclass(frozen=True, eq=False)
class _Frame:
    """The poses of a time: keypoints (P, K, 2), boxes (P, 4) and colors (P, L, 3)."""

    keypoints: NDArray[np.float64]
    boxes: NDArray[np.float64]
    colors: NDArray[np.float64]
    time: float

    def __len__(self) -> int:
        return len(self.keypoints)

    def is_alone(self, pose: int) -> bool:
        """Whether a pose's colors are its own."""
        others = np.delete(self.boxes, pose, axis=0)
        return box_iou(self.boxes[pose, None], others).max(initial=0) <= _ALONE


@dataclass(eq=False)
class _Person:
    """`motion` ends with the last pose; `free` ends with the last one that hid nobody.

    `colors` (L, 3) are those of the limbs, NaN where they were never seen.
    """

    id: int
    box: NDArray[np.float64]
    motion: _Motion
    free: _Motion
    colors: NDArray[np.float64]
    unseen: bool = False  # in the last frame
    behind: "_Person | None" = None  # who seems to hide this one

    def take_colors(self, colors: NDArray[np.float64], dt: float) -> None:
        """Averages the colors with those seen a time after the last pose."""
        old = np.where(np.isnan(self.colors), colors, self.colors)
        new = np.where(np.isnan(colors), old, colors)
        self.colors = new + np.exp(-dt / _COLOR_MEMORY) * (old - new)


class TrackAssociator:
    """Gives the poses of successive frames ids that stay with persons.

    Each person known is moved on at the velocity of the last half second; then persons and poses are joined so that the
    sum of their similarities is largest,

        similarity = 0.7 OKS + 0.3 IoU

    of the poses, with the mean of the boxes' areas, and of the boxes, which tell more where one person's pose slips
    onto another. A pose that is left over joins who has been hidden and can have come there, at a height a second; one
    that joins nobody is a new person. Ids count from 1 and are never given twice.

    Where two persons meet, one pose is often all that is found of them, and it may follow either. So when they part,
    what counts is how each looked and moved before they met. The one pose gets the id of the other where their colors
    fit it better, by 15 in L*a*b*, and when they part they exchange ids if their colors then fit better, by 15 over
    both. Where colors do not differ so much, motion tells within a second: with d the way from the one to the other,
    they exchange ids if

        d(expected) . d(found) < -c size^2

    where keeping the ids would leave a sum of squared distances from what is expected that is larger by 2 c size^2.

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

    def __call__(self, keypoints: NDArray, boxes: NDArray, colors: NDArray, time: float) -> NDArray[np.int64]:
        """The ids (P,) of the poses of a frame.

        Args:
            keypoints: (P, K, 2) in image pixels.
            boxes: (P, 4) xyxy.
            colors: (P, L, 3) of `limb_colors`.
            time: in seconds.
        """
        self._persons = [
            person for person in self._persons if not person.unseen or time - person.motion.time <= self._patience
        ]
        frame = _Frame(keypoints.astype(np.float64), boxes.astype(np.float64), colors, time)
        found = self._slipped(self._parted(self._joined(frame), frame), frame)
        for pose in range(len(frame)):
            if pose not in found:
                motion = _Motion(time, frame.keypoints[pose], np.zeros(2))
                found[pose] = _Person(self._next, frame.boxes[pose], motion, motion, frame.colors[pose])
                self._next += 1
                self._persons.append(found[pose])
        self._remember(found, frame)
        return np.array([found[pose].id for pose in range(len(frame))], dtype=np.int64)

    def _joined(self, frame: _Frame) -> dict[int, _Person]:
        """The persons of poses, by the largest sum of similarities."""
        similarity = self._similarity(frame)
        enough = similarity >= self._least
        pairs = zip(*linear_sum_assignment(np.where(enough, similarity, 0), maximize=True), strict=True)
        return {int(pose): self._persons[person] for person, pose in pairs if enough[person, pose]}

    def _parted(self, found: dict[int, _Person], frame: _Frame) -> dict[int, _Person]:
        """The persons of poses, with those exchanged who met and have parted the other way round."""
        poses = {id(person): pose for pose, person in found.items()}
        for back in [person for person in found.values() if person.unseen]:
            front = back.behind
            if front is None or id(front) not in poses:
                continue
            at_back, at_front = poses[id(back)], poses[id(front)]
            if _are_exchanged(back, front, at_back, at_front, frame):
                found[at_back], found[at_front] = front, back
                poses[id(back)], poses[id(front)] = at_front, at_back
        return found

    def _slipped(self, found: dict[int, _Person], frame: _Frame) -> dict[int, _Person]:
        """The persons of poses, where a pose has gone over to who was hidden behind its person."""
        poses = {id(person): pose for pose, person in found.items()}
        for back in [person for person in self._persons if id(person) not in poses]:
            front = back.behind
            if front is None or id(front) not in poses:
                continue
            pose = poses[id(front)]
            colors = frame.colors[pose]
            change = color_difference(front.colors, colors) - color_difference(back.colors, colors)
            if change >= _SURE_OF_COLORS:
                found[pose] = back
                poses[id(back)] = poses.pop(id(front))
        return found

    def _remember(self, found: dict[int, _Person], frame: _Frame) -> None:
        """Keeps what was seen of each person, and who seems to be hidden behind whom."""
        time = frame.time
        seen = {id(person) for person in found.values()}
        hidden = [person for person in self._persons if id(person) not in seen]
        for person in hidden:
            if not person.unseen and found:
                iou = box_iou((person.box + np.tile(person.motion.way(time), 2))[None], frame.boxes)[0]
                person.behind = found[int(iou.argmax())] if iou.max() >= _HIDES else None
            person.unseen = True
        hiding = {id(person.behind) for person in hidden if time - person.motion.time <= _STEADY}
        for pose, person in found.items():
            if id(person) in hiding:
                person.motion = person.motion.then(frame.keypoints[pose], time)
            else:
                if frame.is_alone(pose):
                    person.take_colors(frame.colors[pose], time - person.motion.time)
                person.motion = person.free = person.free.then(frame.keypoints[pose], time)
            person.box, person.unseen, person.behind = frame.boxes[pose], False, None

    def _similarity(self, frame: _Frame) -> NDArray[np.float64]:
        """(known persons, poses); of those who can have come there a little over the least."""
        boxes, time = frame.boxes, frame.time
        if not self._persons or not len(frame):
            return np.zeros((len(self._persons), len(frame)))
        expected = np.stack([person.motion.at(time) for person in self._persons])
        places = np.stack([person.box + np.tile(person.motion.way(time), 2) for person in self._persons])
        everyone, frames = np.concatenate([expected, frame.keypoints]), np.concatenate([places, boxes])
        areas = (frames[:, 2:] - frames[:, :2]).prod(axis=1)
        oks = oks_matrix(everyone, areas, self._sigmas)[: len(expected), len(expected) :]
        similarity = _OF_POSES * oks + (1 - _OF_POSES) * box_iou(places, boxes)
        hidden = np.array([person.unseen for person in self._persons])
        gone = np.array([time - person.motion.time for person in self._persons])
        reach = (places[:, 2:] - places[:, :2]).max(axis=1) * (0.5 + gone)
        way = np.linalg.norm(_centers(places)[:, None] - _centers(boxes), axis=-1) / reach[:, None]
        can_be = hidden[:, None] & (way < 1)
        return np.where(can_be, np.maximum(similarity, self._least + 0.01 * (1 - way)), similarity)


def _are_exchanged(back: _Person, front: _Person, at_back: int, at_front: int, frame: _Frame) -> bool:
    """Whether two persons who met, and have got these poses, rather have each other's."""
    kept = color_difference(back.colors, frame.colors[at_back])
    kept += color_difference(front.colors, frame.colors[at_front])
    crossed = color_difference(back.colors, frame.colors[at_front])
    crossed += color_difference(front.colors, frame.colors[at_back])
    if abs(crossed - kept) >= _SURE_OF_COLORS:
        return crossed < kept
    if frame.time - min(back.motion.time, front.free.time) > _STEADY:
        return False
    expected = np.median(front.free.at(frame.time) - back.free.at(frame.time), axis=0)
    apart = np.median(frame.keypoints[at_front] - frame.keypoints[at_back], axis=0)
    size = (frame.boxes[at_front, 2:] - frame.boxes[at_front, :2]).max()
    return bool(expected @ apart < -_SURE * size**2)


def _centers(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


_ALONG = (0.25, 0.5, 0.75)  # of a limb: its ends are joints, which others' limbs cross


def limb_colors(
    image_bgr: NDArray[np.uint8], keypoints: NDArray, sure: NDArray[np.bool_], limbs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean color along each limb of each person, in CIE L*a*b*.

    Args:
        image_bgr: (H, W, 3).
        keypoints: (P, K, 2) in image pixels.
        sure: (P, K); a limb has no color where one of its ends is not sure.
        limbs: (L, 2) indices of keypoints.

    Returns:
        (P, L, 3), NaN for limbs without a color or with a point outside of the image.
    """
    height, width = image_bgr.shape[:2]
    begin, end = keypoints[:, limbs[:, 0]], keypoints[:, limbs[:, 1]]
    points = np.rint([begin + share * (end - begin) for share in _ALONG]).astype(np.int64)
    inside = np.all((points >= 0) & (points < [width, height]), axis=(0, -1))
    points = np.where(inside[..., None], points, 0)
    pixels = image_bgr[points[..., 1], points[..., 0]].astype(np.float32) / 255
    if not pixels.size:
        return np.zeros((*begin.shape[:2], 3))
    colors = np.reshape(cv2.cvtColor(pixels.reshape(1, -1, 3), cv2.COLOR_BGR2LAB), pixels.shape).mean(axis=0)
    known = inside & np.all(sure[:, limbs], axis=-1)
    return np.where(known[..., None], colors, np.nan)


def color_difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The mean distance in L*a*b* of two persons' limbs (L, 3) whose colors are known; 0 if there are none."""
    distances = np.linalg.norm(one - other, axis=-1)
    known = ~np.isnan(distances)
    return float(distances[known].mean()) if known.any() else 0.0
