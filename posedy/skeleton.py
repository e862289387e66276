"""Skeletons: names, flip pairs, limbs and OKS sigmas of keypoints.

`COCO17` is the skeleton of COCO's 17 keypoints; other skeletons are read from the category of a COCO file.
"""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
    def flip_pair_names(self) -> tuple[tuple[str, str], ...]:
        """The names of the keypoints of each flip pair."""
        return tuple((self.keypoints[left], self.keypoints[right]) for left, right in self.flip_pairs)

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

        The optional keys `sigmas`, `flip_pairs` and `upper_body` (names or zero-based indices) override the defaults.
        These are `COCO17`'s for COCO's keypoint names. For other names, flip pairs are those of `pair_names`, sigmas
        are the mean of COCO's (with a warning), and the upper body is unknown. Limbs are those of `read_limbs`; invalid
        ones are left out with a `LimbWarning`.

        Raises:
            ValueError: if the record has no keypoint names or its values, except limbs, are inconsistent.
        """
        names = category.get("keypoints")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"category {category.get('name')!r}: expected a list of names under 'keypoints', got {names!r:.60}"
            )
        names = tuple(names)
        is_coco = names == _COCO_NAMES
        limbs, note = read_limbs(names, category.get("skeleton"))
        if note is not None:
            warnings.warn(f"category {category.get('name')!r}: {note}", LimbWarning, stacklevel=2)
        try:
            if category.get("flip_pairs") is not None:
                pairs = tuple((_index(a, names), _index(b, names)) for a, b in category["flip_pairs"])
            else:
                pairs = pair_names(names)
            if category.get("sigmas") is not None:
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
            upper_body = tuple(_index(value, names) for value in upper) if upper is not None else None
        except (TypeError, ValueError) as error:
            raise ValueError(f"category {category.get('name')!r} is not a valid skeleton: {error}") from error
        if is_coco and upper_body is None:
            upper_body = _COCO_UPPER_BODY
        return cls(names, pairs, limbs, sigmas, upper_body)


class LimbWarning(UserWarning):
    """The limbs of a category are not as COCO writes them; only drawings need limbs."""


def read_limbs(names: Sequence[str], skeleton: Any) -> tuple[tuple[tuple[int, int], ...], str | None]:
    """Reads the value of `skeleton`, pairs of keypoints counted from 1, as pairs of indices.

    Pairs of names are accepted, too, and so are pairs counted from 0 if 0 occurs and K does not.

    Returns:
        The limbs, none if the value is invalid, and a sentence if it is not as COCO writes it.
    """
    limbs = []
    for limb in skeleton if isinstance(skeleton, list | tuple) else [skeleton] if skeleton else ():
        try:
            a, b = limb
            has_names = {a, b} & set(names)
            limbs.append((names.index(a), names.index(b)) if has_names else (int(a) - 1, int(b) - 1))
        except (TypeError, ValueError, OverflowError):
            return (), f"{_NO_LIMBS}, got {limb!r:.60}"
    ends = {end for limb in limbs for end in limb}
    if ends and min(ends) == -1 and max(ends) < len(names) - 1:
        return tuple((a + 1, b + 1) for a, b in limbs), (
            f"limbs are counted from 0, as keypoint 0 occurs and {len(names)} does not: COCO counts from 1"
        )
    invalid = [end + 1 for end in ends if not 0 <= end < len(names)]
    if invalid:
        return (), f"{_NO_LIMBS} to {len(names)}, got {invalid[0]!r:.20}"
    return tuple(limbs), None


def pair_names(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Finds the (left, right) pairs of indices whose names differ only in all their words for left and right.

    Words are separated by other characters or by capitals: left_eye, EyeL, "shoulder.L", LShoulder, kp_left3. A side
    that is no word of its own (leye, LSHO) counts if swapping it gives the name of another keypoint. Names that cannot
    be told apart are not paired.
    """
    signatures = [_split_sides(name) for name in names]
    counts = Counter(signatures)
    index_of = {signature: index for index, signature in enumerate(signatures) if counts[signature] == 1}
    swapped = {index: tuple(map(_swap, signature)) for signature, index in index_of.items() if _side(signature) == 0}
    pairs = [(index, index_of[signature]) for index, signature in swapped.items() if signature in index_of]
    unpaired = {name.lower(): index for index, name in enumerate(names) if _side(signatures[index]) is None}
    for left in list(unpaired):
        for right in (re.sub("^l", "r", left), re.sub("l$", "r", left)):
            if len(left) > 2 and right != left and left in unpaired and right in unpaired:
                pairs.append((unpaired.pop(left), unpaired.pop(right)))
    return tuple(sorted(pairs))


def side_of_name(name: str) -> Literal["left", "right"] | None:
    """Returns the side that the first word for left or right in a keypoint's name means, None without such a word.

    L and R before a number are no such words: L5 is a lumbar vertebra, too.
    """
    side = None if re.fullmatch(r"[LR]\d+", name) else _side(_split_sides(name))
    return None if side is None else ("left", "right")[side]


# a word of a name, or a word for a side and whether it means right
_Word = str | tuple[int, int]


def _split_sides(name: str) -> tuple[_Word, ...]:
    parts = (part.lower() for word in _WORD.findall(name) for part in _FUSED.split(word) if part)
    return tuple(_SIDES.get(part, part) for part in parts)


def _swap(word: _Word) -> _Word:
    return word if isinstance(word, str) else (word[0], 1 - word[1])


def _side(signature: Sequence[_Word]) -> int | None:
    """Returns 0 if the first word for a side means left, 1 for right."""
    return next((word[1] for word in signature if not isinstance(word, str)), None)


def _index(value: Any, names: Sequence[str]) -> int:
    """Returns the number of a keypoint that is given by its name or number."""
    return names.index(value) if isinstance(value, str) and value in names else int(value)


_NO_LIMBS = "limbs are left out: 'skeleton' has pairs of keypoints, counted from 1"
# capitals that start no word, words, numbers, and words of other letters
_WORD = re.compile(r"[左右]|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z左右]+")
# left and right within a word: leftear, earright
_FUSED = re.compile(r"^(left|right)(?=.)|(?<=.)(left|right)$", re.IGNORECASE)
_SIDE_WORDS = (
    *(("left", "right"), ("l", "r"), ("lt", "rt"), ("lft", "rgt"), ("左", "右"), ("links", "rechts")),
    *(("gauche", "droite"), ("izquierda", "derecha"), ("izquierdo", "derecho"), ("esquerda", "direita")),
    *(("esquerdo", "direito"), ("sinistra", "destra"), ("sinistro", "destro")),
    *(("izq", "der"), ("esq", "dir"), ("sx", "dx")),
)
_SIDES = {word: (form, side) for form, pair in enumerate(_SIDE_WORDS) for side, word in enumerate(pair)}
_SIDES["droit"] = _SIDES["droite"]
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

COCO17 = Skeleton(_COCO_NAMES, pair_names(_COCO_NAMES), _COCO_LIMBS, _COCO_SIGMAS, _COCO_UPPER_BODY)


def numbered_skeleton(num_keypoints: int) -> Skeleton:
    """Creates a skeleton for unnamed keypoints: numbered names, no flip pairs or limbs, the mean of COCO's sigmas."""
    names = tuple(f"keypoint_{index}" for index in range(num_keypoints))
    return Skeleton(names, (), (), (float(np.mean(COCO17.sigmas)),) * num_keypoints)
