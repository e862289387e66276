"""Constants of the tracker."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackingSettings:
    """Constants of `PoseTracker` and `TrackAssociator`.

    Sizes are relative to boxes, and times are in seconds: they depend on neither the resolution nor the frame rate,
    except for `extra_interval` and `min_box_side`. IoU, OKS and fractions are in [0, 1].

    Attributes:
        duplicate_oks: OKS above which two poses of a frame are duplicates; the one with the lower score is dropped.
        box_margin: margin on each side of the next box of a person, as a fraction of the larger extent of the
            confident keypoints; a larger one follows faster motion, and includes more of other persons.
        same_person_iou: minimum IoU of a detection and a tracked person to be the same person.
        same_person_coverage: alternatively, minimum fraction of the tight box of the tracked person that the
            detection covers.
        max_misses: maximum number of consecutive detections that miss a tracked person; then the track ends.
        min_confident_share: a person is lost with a smaller fraction of the keypoints that were confident at the last
            detection.
        min_confident: a person is lost with fewer confident keypoints (half of the skeleton if it has fewer than six
            keypoints).
        partial_share: the next box keeps the size of the last one with a smaller fraction of confident keypoints.
        extra_interval: minimum number of frames between extra detections after a lost person.
        min_box_side: in pixels; persons with smaller boxes are dropped.
        match_threshold: minimum similarity of a pose and a track.
        oks_weight: weight of OKS in the similarity; the weight of the IoU of the boxes is the rest.
        max_age: seconds for which a lost track is kept, at least until the next frame.
        max_size_ratio: maximum ratio of the heights of a pose's box and that of a lost track that it does not overlap;
            with a panning camera the track of a near person could otherwise pass to a distant one.
        velocity_time: seconds over which velocity is averaged; many frames, since overlapping poses are noisy.
        max_extrapolation: seconds for which a lost track is extrapolated at its last velocity, and for which motion
            alone may swap ids after an occlusion.
        occlusion_iou: minimum IoU of a lost track with the pose that occludes it.
        min_motion_evidence: minimum motion evidence for a swap, in squared person sizes; c of `TrackAssociator`.
        min_color_evidence: difference of limb colors in L*a*b* from which colors override motion.
        color_time: seconds over which limb colors are averaged.
        isolated_iou: maximum IoU with another box up to which limb colors are reliable.
    """

    duplicate_oks: float = 0.7
    box_margin: float = 0.15
    same_person_iou: float = 0.4
    same_person_coverage: float = 0.9
    max_misses: int = 3
    min_confident_share: float = 0.5
    min_confident: int = 3
    partial_share: float = 0.5
    extra_interval: int = 5
    min_box_side: float = 2
    match_threshold: float = 0.15
    oks_weight: float = 0.7
    max_age: float = 3.0
    max_size_ratio: float = 2.0
    velocity_time: float = 0.5
    max_extrapolation: float = 1.0
    occlusion_iou: float = 0.3
    min_motion_evidence: float = 0.02
    min_color_evidence: float = 15.0
    color_time: float = 2.0
    isolated_iou: float = 0.2


DEFAULT_SETTINGS = TrackingSettings()
