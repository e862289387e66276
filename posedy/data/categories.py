"""Categories of COCO files: the keypoint category, its skeleton, and overrides of it by the configuration."""

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from posedy.config import SkeletonConfig
from posedy.data.coco_file import CocoFile, Record, format_value, select_objects
from posedy.data.issues import IssueLog, short_repr
from posedy.data.tables import invalid_ids
from posedy.registration import nearest_name
from posedy.skeleton import LimbWarning, Skeleton, pair_names, side_of_name

PERSON_CATEGORY_ID = 1
"""COCO's category id of persons."""

_SET_PAIRS = "set data.skeleton.flip_pairs, or 'flip_pairs' in the category"
# Fewer numbered keypoints without a side, such as spine1 to spine5, probably lie in the middle of the body.
_MAX_IN_THE_MIDDLE = 7


def read_keypoint_category(file: CocoFile, log: IssueLog, allow_text_ids: bool = False) -> dict[str, Any] | None:
    """Returns the record of the one category with keypoints, or None after logging an error."""
    if not file.categories:
        log.error("no categories", "'categories' is empty", "Add the person category with its keypoint names.")
        return None
    records = select_objects(file.categories, "categories", log)
    categories = [record for record in records if has_keypoints(record)]
    if len(categories) != 1:
        log.error(
            "several categories with keypoints" if categories else "no category with keypoints",
            f"categories {format_category_names(categories or records)}",
            "Keep only the category to train on and its annotations."
            if categories
            else "Give a keypoint file (person_keypoints_*.json, not instances_*.json), or add the list 'keypoints'.",
        )
        return None
    category = categories[0]
    if invalid_ids([category.get("id")], allow_text_ids and isinstance(category.get("id"), str))[0]:
        log.error("category without a valid id", format_value(category, "id"), "Write an integer id.")
        return None
    return dict(category)


def read_person_category_id(file: CocoFile, log: IssueLog) -> Any:
    """Returns the id of the category with keypoints, or else of the category named person.

    It is 1 for a file without categories. No such category, or more than one, is logged as an error.
    """
    categories = select_objects(file.categories, "categories", log)
    with_keypoints = [category for category in categories if has_keypoints(category)]
    named_person = [category for category in categories if category.get("name") == "person"]
    for candidates in (with_keypoints, named_person):
        category_id = candidates[0].get("id") if len(candidates) == 1 else None
        if not invalid_ids([category_id], isinstance(category_id, str))[0]:
            return category_id
    if categories:
        log.error(
            "no unique category with keypoints or named person",
            f"categories {format_category_names(categories)}",
            "Keep only one category of persons.",
        )
    return PERSON_CATEGORY_ID


def has_keypoints(category: Record) -> bool:
    """Returns whether a category's record names keypoints."""
    return isinstance(category.get("keypoints"), list) and len(category["keypoints"]) > 0


def format_category_names(categories: Sequence[Record]) -> str:
    """Formats the names of the first categories as text."""
    return ", ".join([short_repr(category.get("name")) for category in categories][:8]) or "none"


def read_skeleton(category: Record, overrides: SkeletonConfig | None, log: IssueLog) -> Skeleton | None:
    """Returns the skeleton of a category, or None after logging an error."""
    # a custom skeleton without sigmas gets default ones, which is a warning of the file, not an exception
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            changed = apply_overrides(category, overrides)
            skeleton = Skeleton.from_coco_category(changed)
        except (ValueError, OverflowError) as error:
            log.error("invalid skeleton", str(error), "Fix the category's record, or data.skeleton.")
            return None
    about_limbs = [item for item in caught if issubclass(item.category, LimbWarning)]
    log.add(
        "warning",
        "unusual limbs",
        about_limbs,
        lambda item: str(item.message),
        "Only drawings need them: fix 'skeleton' in the category, or set data.skeleton.limbs.",
    )
    log.add(
        "warning",
        "skeleton without sigmas",
        [item for item in caught if item not in about_limbs],
        lambda item: str(item.message),
        "OKS and AP are only approximate without them.",
    )
    _check_flip_pairs(skeleton, changed.get("flip_pairs") is not None, log)
    return skeleton


def _check_flip_pairs(skeleton: Skeleton, has_key: bool, log: IssueLog) -> None:
    """Logs names that contradict the flip pairs, which are given (`has_key`) or found by the names."""
    names = skeleton.keypoints
    sides = [side_of_name(name) for name in names]
    by_name = {index: other for a, b in pair_names(names) for index, other in ((a, b), (b, a))}
    log.add(
        "warning",
        "flip pair that contradicts the names",
        [(a, b) for a, b in skeleton.flip_pairs if by_name.get(a, b) != b or by_name.get(b, a) != a],
        lambda pair: f"{names[pair[0]]}-{names[pair[1]]}",
        "A flip exchanges left and right: 'flip_pairs' of a category are names, or indices counted from 0.",
    )
    if has_key:
        return
    if not skeleton.flip_pairs and len(names) > 1:
        log.add(
            "warning",
            "skeleton without flip pairs",
            [names],
            lambda names: f"keypoints {', '.join(names[:5])}",
            f"A flip would swap no keypoints: {_SET_PAIRS} ([] for none).",
        )
        return
    free = sorted(set(range(len(names))).difference(*skeleton.flip_pairs))
    log.add(
        "warning",
        "left or right keypoint without a flip pair",
        [names[index] for index in free if sides[index]],
        str,
        f"A flip swaps the others, but not these: {_SET_PAIRS}.",
    )
    series: dict[str, list[str]] = defaultdict(list)
    for index in (index for index in free if not sides[index]):
        series[re.sub(r"\d+", "#", names[index])].append(names[index])
    log.add(
        "warning",
        "numbered keypoints without flip pairs",
        [numbered for numbered in series.values() if len(numbered) > _MAX_IN_THE_MIDDLE],
        lambda numbered: f"{numbered[0]} to {numbered[-1]}",
        f"Their names do not say which are left and right, so that a flip swaps none of them: {_SET_PAIRS}.",
    )


def apply_overrides(category: Mapping[str, Any], overrides: SkeletonConfig | None) -> dict[str, Any]:
    """Copies a category's record with the flip pairs, limbs, sigmas and upper body of a configuration.

    Args:
        category: the record of a COCO file, with the names under 'keypoints'.
        overrides: the values, by keypoint names; None changes nothing.

    Raises:
        ValueError: if a name is not a keypoint of the category, or the number of sigmas is wrong.
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
            raise ValueError(f"data.skeleton.sigmas has no value for {', '.join(missing)}: give one for every keypoint")
        return [sigmas[name] for name in names]
    if isinstance(sigmas, float | int):
        return [float(sigmas)] * len(names)
    if len(sigmas) != len(names):
        raise ValueError(
            f"data.skeleton.sigmas (or --sigmas): expected {len(names)} numbers, got {len(sigmas)}; the category's "
            f"keypoints are {', '.join(names)}"
        )
    return list(sigmas)


def _indices(keypoints: Sequence[str], names: list[str], key: str) -> list[int]:
    for keypoint in keypoints:
        if keypoint not in names:
            nearest = nearest_name(keypoint, map(str, names))
            raise ValueError(
                f"data.skeleton.{key}: {keypoint!r} is not a keypoint of the annotation file; the nearest name is "
                f"{nearest!r}"
            )
    return [names.index(keypoint) for keypoint in keypoints]
