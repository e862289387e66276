"""Skeletons: names, flip pairs, limbs and OKS sigmas of keypoints.

`COCO17` is the skeleton of COCO's 17 keypoints; other skeletons are read from the category of a COCO file.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """The names, flip pairs, limbs and OKS sigmas of K keypoints.

    Attributes:
        keypoints: K names.
        flip_pairs: (left, right) pairs of indices that are swapped by a flip.
        limbs: pairs of indices connected by a line in plots.
        sigmas: K per-keypoint standard deviations of OKS, in units of the square root of the person's area.
        upper_body: indices of the upper body for half-body augmentation, or None if unknown.

    Raises:
        ValueError: if lengths, names or indices are inconsistent.
    """

    keypoints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    upper_body: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if count == 0:
            raise ValueError("expected at least one keypoint, got none")
        if len(set(self.keypoints)) != count:
            raise ValueError(f"expected unique keypoint names, got {list(self.keypoints)}")
        if len(self.sigmas) != count:
            raise ValueError(f"expected {count} sigmas for {count} keypoints, got {len(self.sigmas)}")
        if not all(np.isfinite(sigma) and sigma > 0 for sigma in self.sigmas):
            raise ValueError(f"expected positive finite sigmas, got {list(self.sigmas)}")
        for name, pairs in (("flip_pairs", self.flip_pairs), ("limbs", self.limbs)):
            if any(len(pair) != 2 for pair in pairs):
                raise ValueError(f"{name}: expected pairs of indices, got {list(pairs)}")
        paired = [index for pair in self.flip_pairs for index in pair]
        if len(set(paired)) != len(paired):
            raise ValueError(f"flip_pairs: expected each keypoint at most once, got {list(self.flip_pairs)}")
        limb_ends = [index for limb in self.limbs for index in limb]
        for name, indices in (("flip_pairs", paired), ("limbs", limb_ends), ("upper_body", self.upper_body or ())):
            invalid = [index for index in indices if not 0 <= index < count]
            if invalid:
                raise ValueError(f"{name}: expected indices from 0 to {count - 1}, got {invalid}")

    @property
    def num_keypoints(self) -> int:
        """The number K of keypoints."""
        return len(self.keypoints)

    @property
    def flip_permutation(self) -> tuple[int, ...]:
        """The K indices of a flip: keypoint i of a flipped image is keypoint flip_permutation[i] of the image."""
        permutation = list(range(self.num_keypoints))
        for left, right in self.flip_pairs:
            permutation[left], permutation[right] = right, left
        return tuple(permutation)

    @property
    def lower_body(self) -> tuple[int, ...] | None:
        """The indices outside the upper body, or None if that is unknown."""
        if self.upper_body is None:
            return None
        return tuple(index for index in range(self.num_keypoints) if index not in self.upper_body)

    def to_coco_category(self) -> dict[str, Any]:
        """Converts to a `categories` record of a COCO file, with the extra keys sigmas, flip_pairs and upper_body."""
        record: dict[str, Any] = {
            "supercategory": "person",
            "id": 1,
            "name": "person",
            "keypoints": list(self.keypoints),
            "skeleton": [[a + 1, b + 1] for a, b in self.limbs],
            "sigmas": list(self.sigmas),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
        }
        if self.upper_body is not None:
            record["upper_body"] = list(self.upper_body)
        return record

    @classmethod
    def from_coco_category(cls, category: Mapping[str, Any]) -> "Skeleton":
        """Reads a skeleton from the `categories` record of a COCO keypoint file.

        The optional keys `sigmas`, `flip_pairs` and `upper_body` (zero-based indices) override the defaults. These are
        `COCO17`'s for COCO's keypoint names. For other names, flip pairs are the names that differ in left/right only,
        sigmas are the mean of COCO's (with a warning), and the upper body is unknown.

        Raises:
            ValueError: if the record has no keypoint names or its values are inconsistent.
        """
        names = category.get("keypoints")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"category {category.get('name')!r}: expected a list of names under 'keypoints', got {names!r:.60}"
            )
        names = tuple(names)
        is_coco = names == _COCO_NAMES
        try:
            limbs = tuple((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton") or ())
            if "flip_pairs" in category:
                pairs = tuple((int(a), int(b)) for a, b in category["flip_pairs"])
            else:
                pairs = _pairs_by_name(names)
            if "sigmas" in category:
                sigmas = tuple(float(sigma) for sigma in category["sigmas"])
            elif is_coco:
                sigmas = _COCO_SIGMAS
            else:
                sigma = round(float(np.mean(_COCO_SIGMAS)), 4)
                warnings.warn(
                    f"category {category.get('name')!r} has no 'sigmas': OKS uses {sigma}, the mean of COCO's, for all "
                    f"{len(names)} keypoints; add a list 'sigmas' to the category to set them",
                    stacklevel=2,
                )
                sigmas = (sigma,) * len(names)
            upper = category.get("upper_body")
            upper_body = tuple(int(index) for index in upper) if upper is not None else None
        except (TypeError, ValueError) as error:
            raise ValueError(f"category {category.get('name')!r} is not a valid skeleton: {error}") from error
        if is_coco and upper_body is None:
            upper_body = _COCO_UPPER_BODY
        return cls(names, pairs, limbs, sigmas, upper_body)


def _pairs_by_name(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Finds the pairs of indices whose names differ only in 'left' and 'right', or in a separate L and R."""
    index_of = {name.lower(): index for index, name in enumerate(names)}
    pairs = []
    for index, name in enumerate(names):
        right = _LEFT.sub(lambda match: "right" if len(match[0]) > 1 else "r", name.lower())
        if right != name.lower() and right in index_of:
            pairs.append((index, index_of[right]))
    return tuple(pairs)


_LEFT = re.compile(r"left|(?<![a-z0-9])l(?![a-z0-9])")
_COCO_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
# pycocotools' kpt_oks_sigmas
_COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
_COCO_LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
_COCO_UPPER_BODY = tuple(range(11))

COCO17 = Skeleton(_COCO_NAMES, _pairs_by_name(_COCO_NAMES), _COCO_LIMBS, _COCO_SIGMAS, _COCO_UPPER_BODY)


def numbered_skeleton(num_keypoints: int) -> Skeleton:
    """Creates a skeleton for unnamed keypoints: numbered names, no flip pairs or limbs, the mean of COCO's sigmas."""
    names = tuple(f"keypoint_{index}" for index in range(num_keypoints))
    return Skeleton(names, (), (), (float(np.mean(COCO17.sigmas)),) * num_keypoints)
