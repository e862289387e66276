"""Association of poses with tracks by motion, overlap and limb colors."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.geometry import box_iou
from posedy.inference.tracking_settings import DEFAULT_SETTINGS, TrackingSettings
from posedy.oks import oks_matrix


@dataclass(frozen=True, eq=False)
class _Motion:
    """Keypoints (K, 2) at a time in seconds, and their mean velocity (2,) in pixels per second."""

    time: float
    keypoints: NDArray[np.float64]
    velocity: NDArray[np.float64]
    settings: TrackingSettings

    def resize(self, scale: float) -> "_Motion":
        """Returns the motion in an image whose sides are those of the present one times a scale."""
        return replace(self, keypoints=self.keypoints * scale, velocity=self.velocity * scale)

    def predict_displacement(self, time: float) -> NDArray[np.float64]:
        """Predicts the displacement (2,) up to a time, at constant velocity for at most `max_extrapolation`."""
        return self.velocity * min(time - self.time, self.settings.max_extrapolation)

    def predict(self, time: float) -> NDArray[np.float64]:
        """Predicts the keypoints (K, 2) at a time."""
        return self.keypoints + self.predict_displacement(time)

    def update(self, keypoints: NDArray[np.float64], time: float) -> "_Motion":
        """Returns the motion after a new observation; old velocities decay with exp(-dt / `velocity_time`)."""
        dt = time - self.time
        if dt <= 0:
            return replace(self, time=time, keypoints=keypoints)
        new = np.median(keypoints - self.keypoints, axis=0) / dt
        velocity = new + np.exp(-dt / self.settings.velocity_time) * (self.velocity - new)
        return replace(self, time=time, keypoints=keypoints, velocity=velocity)


@dataclass(frozen=True, eq=False)
class _FramePoses:
    """Poses of one frame: keypoints (P, K, 2), boxes (P, 4) and limb colors (P, L, 3)."""

    keypoints: NDArray[np.float64]
    boxes: NDArray[np.float64]
    colors: NDArray[np.float64]
    time: float

    def __len__(self) -> int:
        return len(self.keypoints)

    def max_overlap(self, pose: int) -> float:
        """Computes the largest IoU of a pose's box with another one."""
        others = np.delete(self.boxes, pose, axis=0)
        return float(box_iou(self.boxes[pose, None], others).max(initial=0))


@dataclass(eq=False)
class Track:
    """State of one tracked person: its id, last box, motion and limb colors.

    Attributes:
        id: track id, from 1.
        box: (4,) xyxy, the box of the last pose.
        motion: up to the last pose.
        last_unoccluded: motion up to the last pose that occluded no other track.
        colors: (L, 3) mean limb colors, NaN for limbs that were never visible.
        is_lost: whether the last frame has no pose of the track.
        occluded_by: the track that probably occludes this one.
    """

    id: int
    box: NDArray[np.float64]
    motion: _Motion
    last_unoccluded: _Motion
    colors: NDArray[np.float64]
    is_lost: bool = False
    occluded_by: "Track | None" = None

    def update_colors(self, colors: NDArray[np.float64], dt: float) -> None:
        """Averages the colors with those of a new pose, dt seconds after the last one."""
        old = np.where(np.isnan(self.colors), colors, self.colors)
        new = np.where(np.isnan(colors), old, colors)
        self.colors = new + np.exp(-dt / self.motion.settings.color_time) * (old - new)


class TrackAssociator:
    """Data association: assigns track ids to the poses of successive frames.

    Tracks are extrapolated at their mean velocity of the last half second. The assignment of poses to tracks maximizes
    the sum of their similarities,

        similarity = 0.7 OKS + 0.3 IoU

    with the OKS of the poses, normalized by the mean box area, and the IoU of the boxes, which is more reliable where
    the pose of one person jumps to another. An unmatched pose may match a lost track that can have reached it at a
    speed of one person height per second, if their boxes differ by at most a factor of two in height; otherwise it
    starts a new track. Ids count from 1 and are never reused.

    Where two persons overlap, often only one of their poses is detected. Appearance and motion from before the
    occlusion decide which one. This pose takes the id of the occluded track if its colors fit that track better by 15
    in L*a*b*. After the occlusion two tracks swap ids if their colors fit better then, by 15 in sum. Where colors
    differ less, motion decides for occlusions of up to a second: with d the displacement from one person to the other,
    two tracks swap ids if

        d(predicted) . d(observed) < -c size^2

    that is, if keeping the ids has a sum of squared prediction errors that is larger by more than 2 c size^2.

    Args:
        sigmas: (K,) OKS sigmas of the skeleton.
        settings: constants of the association; the numbers above are the defaults.
    """

    def __init__(self, sigmas: NDArray[np.float64], settings: TrackingSettings = DEFAULT_SETTINGS) -> None:
        # its import takes a second: images do not need it, and the first frame of a camera should not wait for it
        from scipy.optimize import linear_sum_assignment

        self._assign = linear_sum_assignment
        self._sigmas = np.asarray(sigmas, dtype=np.float64)
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Deletes all tracks; ids start at 1 again."""
        self._tracks: list[Track] = []
        self._next_id = 1

    def resize(self, scale: float | None) -> None:
        """Moves the tracks to frames whose sides are those of the last one times a scale; None ends all tracks."""
        if scale is None:
            self._tracks = []
            return
        for track in self._tracks:
            track.box = track.box * scale
            track.motion, track.last_unoccluded = track.motion.resize(scale), track.last_unoccluded.resize(scale)

    def update(self, keypoints: NDArray, boxes: NDArray, colors: NDArray, time: float) -> NDArray[np.int64]:
        """Updates the tracks with the poses of the next frame.

        Args:
            keypoints: (P, K, 2) in image pixels.
            boxes: (P, 4) xyxy.
            colors: (P, L, 3) from `limb_colors`.
            time: time in seconds.

        Returns:
            Track ids (P,).
        """
        self._tracks = [
            track for track in self._tracks if not track.is_lost or time - track.motion.time <= self._settings.max_age
        ]
        frame = _FramePoses(keypoints.astype(np.float64), boxes.astype(np.float64), colors, time)
        matches = self._recover_occluded(self._fix_swaps(self._associate(frame), frame), frame)
        for pose in range(len(frame)):
            if pose not in matches:
                motion = _Motion(time, frame.keypoints[pose], np.zeros(2), self._settings)
                matches[pose] = Track(self._next_id, frame.boxes[pose], motion, motion, frame.colors[pose])
                self._next_id += 1
                self._tracks.append(matches[pose])
        self._update_tracks(matches, frame)
        return np.array([matches[pose].id for pose in range(len(frame))], dtype=np.int64)

    def _associate(self, frame: _FramePoses) -> dict[int, Track]:
        """Matches poses with tracks by the largest sum of similarities."""
        similarity = self._similarity(frame)
        is_similar = similarity >= self._settings.match_threshold
        pairs = zip(*self._assign(np.where(is_similar, similarity, 0), maximize=True), strict=True)
        return {int(pose): self._tracks[track] for track, pose in pairs if is_similar[track, pose]}

    def _fix_swaps(self, matches: dict[int, Track], frame: _FramePoses) -> dict[int, Track]:
        """Swaps the tracks of two poses whose ids were exchanged during an occlusion."""
        poses = {id(track): pose for pose, track in matches.items()}
        for occluded in [track for track in matches.values() if track.is_lost]:
            occluder = occluded.occluded_by
            if occluder is None or id(occluder) not in poses:
                continue
            occluded_pose, occluder_pose = poses[id(occluded)], poses[id(occluder)]
            if _are_swapped(occluded, occluder, occluded_pose, occluder_pose, frame, self._settings):
                matches[occluded_pose], matches[occluder_pose] = occluder, occluded
                poses[id(occluded)], poses[id(occluder)] = occluder_pose, occluded_pose
        return matches

    def _recover_occluded(self, matches: dict[int, Track], frame: _FramePoses) -> dict[int, Track]:
        """Moves a pose to a track that it occludes if its colors fit that track better than its own."""
        poses = {id(track): pose for pose, track in matches.items()}
        for occluded in [track for track in self._tracks if id(track) not in poses]:
            pose = poses.get(id(occluded.occluded_by)) if occluded.is_lost else self._occluding_pose(occluded, frame)
            if pose is None or pose not in matches:
                continue
            colors = frame.colors[pose]
            gain = color_difference(matches[pose].colors, colors) - color_difference(occluded.colors, colors)
            if gain >= self._settings.min_color_evidence:
                poses[id(occluded)] = poses.pop(id(matches[pose]))
                matches[pose] = occluded
        return matches

    def _occluding_pose(self, track: Track, frame: _FramePoses) -> int | None:
        """Returns the pose that probably occludes a track since this frame: the one over its predicted box."""
        if not len(frame):
            return None
        box = track.box + np.tile(track.motion.predict_displacement(frame.time), 2)
        iou = box_iou(box[None], frame.boxes)[0]
        return int(iou.argmax()) if iou.max() >= self._settings.occlusion_iou else None

    def _update_tracks(self, matches: dict[int, Track], frame: _FramePoses) -> None:
        """Updates the matched tracks, marks the others as lost and finds their occluders."""
        time = frame.time
        matched = {id(track) for track in matches.values()}
        lost = [track for track in self._tracks if id(track) not in matched]
        for track in lost:
            if not track.is_lost:
                pose = self._occluding_pose(track, frame)
                track.occluded_by = None if pose is None else matches[pose]
            track.is_lost = True
        recently_lost = [track for track in lost if time - track.motion.time <= self._settings.max_extrapolation]
        occluders = {id(track.occluded_by) for track in recently_lost}
        for pose, track in matches.items():
            if id(track) in occluders:
                track.motion = track.motion.update(frame.keypoints[pose], time)
            else:
                if frame.max_overlap(pose) <= self._settings.isolated_iou:
                    track.update_colors(frame.colors[pose], time - track.motion.time)
                track.motion = track.last_unoccluded = track.last_unoccluded.update(frame.keypoints[pose], time)
            track.box, track.is_lost, track.occluded_by = frame.boxes[pose], False, None

    def _similarity(self, frame: _FramePoses) -> NDArray[np.float64]:
        """Computes the similarities (tracks, poses); a lost track matches every pose of its size within its reach."""
        boxes, time = frame.boxes, frame.time
        if not self._tracks or not len(frame):
            return np.zeros((len(self._tracks), len(frame)))
        predicted = np.stack([track.motion.predict(time) for track in self._tracks])
        predicted_boxes = np.stack(
            [track.box + np.tile(track.motion.predict_displacement(time), 2) for track in self._tracks]
        )
        all_keypoints = np.concatenate([predicted, frame.keypoints])
        all_boxes = np.concatenate([predicted_boxes, boxes])
        areas = (all_boxes[:, 2:] - all_boxes[:, :2]).prod(axis=1)
        oks = oks_matrix(all_keypoints, areas, self._sigmas)[: len(predicted), len(predicted) :]
        weight = self._settings.oks_weight
        similarity = weight * oks + (1 - weight) * box_iou(predicted_boxes, boxes)
        is_lost = np.array([track.is_lost for track in self._tracks])
        age = np.array([time - track.motion.time for track in self._tracks])
        reach = (predicted_boxes[:, 2:] - predicted_boxes[:, :2]).max(axis=1) * (0.5 + age)
        distance = np.linalg.norm(_centers(predicted_boxes)[:, None] - _centers(boxes), axis=-1) / reach[:, None]
        heights = predicted_boxes[:, None, 3] - predicted_boxes[:, None, 1], boxes[:, 3] - boxes[:, 1]
        is_as_large = np.maximum(*heights) <= self._settings.max_size_ratio * np.minimum(*heights)
        is_reachable = is_lost[:, None] & is_as_large & (distance < 1)
        minimum = self._settings.match_threshold + 0.01 * (1 - distance)
        return np.where(is_reachable, np.maximum(similarity, minimum), similarity)


def _are_swapped(
    occluded: Track,
    occluder: Track,
    occluded_pose: int,
    occluder_pose: int,
    frame: _FramePoses,
    settings: TrackingSettings,
) -> bool:
    """Returns whether two tracks fit each other's poses better than their own, by colors or else by motion."""
    kept = color_difference(occluded.colors, frame.colors[occluded_pose])
    kept += color_difference(occluder.colors, frame.colors[occluder_pose])
    swapped = color_difference(occluded.colors, frame.colors[occluder_pose])
    swapped += color_difference(occluder.colors, frame.colors[occluded_pose])
    if abs(swapped - kept) >= settings.min_color_evidence:
        return swapped < kept
    if frame.time - min(occluded.motion.time, occluder.last_unoccluded.time) > settings.max_extrapolation:
        return False
    occluder_motion, occluded_motion = occluder.last_unoccluded, occluded.last_unoccluded
    predicted = np.median(occluder_motion.predict(frame.time) - occluded_motion.predict(frame.time), axis=0)
    observed = np.median(frame.keypoints[occluder_pose] - frame.keypoints[occluded_pose], axis=0)
    size = (frame.boxes[occluder_pose, 2:] - frame.boxes[occluder_pose, :2]).max()
    return bool(predicted @ observed < -settings.min_motion_evidence * size**2)


def _centers(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


_LIMB_SAMPLES = (0.25, 0.5, 0.75)  # positions along a limb; limbs of other persons often cross its ends


def limb_colors(
    image_bgr: NDArray[np.uint8], keypoints: NDArray, confident: NDArray[np.bool_], limbs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Computes the mean color along each limb of each person, in CIE L*a*b*.

    Args:
        image_bgr: (H, W, 3).
        keypoints: (P, K, 2) in image pixels.
        confident: (P, K); a limb has no color if one of its ends is not confident.
        limbs: (L, 2) indices of keypoints.

    Returns:
        Colors (P, L, 3), NaN for limbs without a color or with a sample outside the image.
    """
    height, width = image_bgr.shape[:2]
    starts, ends = keypoints[:, limbs[:, 0]], keypoints[:, limbs[:, 1]]
    samples = np.rint([starts + position * (ends - starts) for position in _LIMB_SAMPLES]).astype(np.int64)
    is_inside = np.all((samples >= 0) & (samples < [width, height]), axis=(0, -1))
    samples = np.where(is_inside[..., None], samples, 0)
    pixels = image_bgr[samples[..., 1], samples[..., 0]].astype(np.float32) / 255
    if not pixels.size:
        return np.zeros((*starts.shape[:2], 3))
    colors = np.reshape(cv2.cvtColor(pixels.reshape(1, -1, 3), cv2.COLOR_BGR2LAB), pixels.shape).mean(axis=0)
    is_known = is_inside & np.all(confident[:, limbs], axis=-1)
    return np.where(is_known[..., None], colors, np.nan)


def color_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Computes the mean L*a*b* distance of limbs (L, 3) over those with known colors in both persons; 0 if none."""
    distances = np.linalg.norm(first - second, axis=-1)
    is_known = ~np.isnan(distances)
    return float(distances[is_known].mean()) if is_known.any() else 0.0
