"""What a configuration says about keypoints in place of the annotation file."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from posedy.config import SkeletonConfig


def with_overrides(category: Mapping[str, Any], overrides: SkeletonConfig | None) -> dict[str, Any]:
    """A category's record with the pairs, limbs, sigmas and upper body of a configuration in place of its own.

    Args:
        category: the record of a COCO file, with the names under 'keypoints'.
        overrides: by names of keypoints; None changes nothing.

    Raises:
        ValueError: if a name is no keypoint of the category (the nearest is named) or the sigmas are too few or many.
    """
    names = category.get("keypoints")
    changed = dict(category)
    if overrides is None or not isinstance(names, list):
        return changed
    if overrides.flip_pairs is not None:
        changed["flip_pairs"] = [_indices(pair, names, "flip_pairs") for pair in overrides.flip_pairs]
    if overrides.limbs is not None:
        changed["skeleton"] = [[index + 1 for index in _indices(limb, names, "limbs")] for limb in overrides.limbs]
    if overrides.upper_body is not None:
        changed["upper_body"] = _indices(overrides.upper_body, names, "upper_body")
    if overrides.sigmas is not None:
        changed["sigmas"] = _sigmas(overrides.sigmas, names)
    return changed


def _sigmas(sigmas: float | Sequence[float] | Mapping[str, float], names: list[str]) -> list[float]:
    if isinstance(sigmas, Mapping):
        _indices(list(sigmas), names, "sigmas")
        missing = [name for name in names if name not in sigmas]
        if missing:
            raise ValueError(f"data.skeleton.sigmas has none for {', '.join(missing)}: give one for every keypoint")
        return [sigmas[name] for name in names]
    if isinstance(sigmas, float | int):
        return [float(sigmas)] * len(names)
    if len(sigmas) != len(names):
        raise ValueError(
            f"data.skeleton.sigmas (or --sigmas) has {len(sigmas)} numbers, the category {len(names)} keypoints: "
            f"{', '.join(names)}"
        )
    return list(sigmas)


def _indices(keypoints: Sequence[str], names: list[str], what: str) -> list[int]:
    for keypoint in keypoints:
        if keypoint not in names:
            nearest = difflib.get_close_matches(keypoint, map(str, names), n=1, cutoff=0)[0]
            raise ValueError(
                f"data.skeleton.{what}: {keypoint!r} is no keypoint of the annotation file; the nearest is {nearest!r}"
            )
    return [names.index(keypoint) for keypoint in keypoints]
