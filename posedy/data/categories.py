"""The categories of COCO files: the one with keypoints, its skeleton, and what a configuration says in its place."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from posedy.config import SkeletonConfig
from posedy.data.coco_file import CocoFile, Record, objects, value_of
from posedy.data.findings import FindingLog, short
from posedy.data.tables import invalid_ids
from posedy.skeleton import Skeleton

PERSON = 1
"""COCO's category id of persons."""


def read_category(file: CocoFile, log: FindingLog, allow_text_ids: bool = False) -> dict[str, Any] | None:
    """The record of the one category that has keypoints; None, with the reason in the log, where there is none."""
    if not file.categories:
        log.error("no categories", "'categories' is empty", "Add the person category with its keypoint names.")
        return None
    records = objects(file.categories, "categories", log)
    categories = [record for record in records if has_keypoints(record)]
    if len(categories) != 1:
        log.error(
            "several categories with keypoints" if categories else "no category with keypoints",
            f"categories {name_categories(categories or records)}",
            "Keep the one category that is to be trained and its annotations."
            if categories
            else "Give a keypoint file (person_keypoints_*.json, not instances_*.json), or add the list 'keypoints'.",
        )
        return None
    category = categories[0]
    if invalid_ids([category.get("id")], allow_text_ids and isinstance(category.get("id"), str))[0]:
        log.error("category without a valid id", value_of(category, "id"), "Write an integer id.")
        return None
    return dict(category)


def read_person_category(file: CocoFile, log: FindingLog) -> Any:
    """The id of the category whose boxes are persons: the one with keypoints, or else the one named person.

    It is 1 in a file without categories, and logged as an error where there is none or more than one.
    """
    categories = objects(file.categories, "categories", log)
    with_keypoints = [category for category in categories if has_keypoints(category)]
    named = [category for category in categories if category.get("name") == "person"]
    for found in (with_keypoints, named):
        category_id = found[0].get("id") if len(found) == 1 else None
        if not invalid_ids([category_id], isinstance(category_id, str))[0]:
            return category_id
    if categories:
        log.error(
            "none or several categories that have keypoints or are named person",
            f"categories {name_categories(categories)}",
            "Keep the one category whose boxes are those of persons.",
        )
    return PERSON


def has_keypoints(category: Record) -> bool:
    """Whether the record of a category names keypoints."""
    return isinstance(category.get("keypoints"), list) and len(category["keypoints"]) > 0


def name_categories(categories: Sequence[Record]) -> str:
    """The names of the first categories as text."""
    return ", ".join([short(category.get("name")) for category in categories][:8]) or "none"


def read_skeleton(category: Record, overrides: SkeletonConfig | None, log: FindingLog) -> Skeleton | None:
    """The skeleton of a category; None, with the reason in the log, if it cannot be read."""
    # without sigmas of its own a custom skeleton has a default, which is worth a warning, but not an exception
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            skeleton = Skeleton.from_coco_category(with_overrides(category, overrides))
        except (ValueError, OverflowError) as error:
            advice = "Repair the category's record, or data.skeleton."
            log.error("the skeleton of the category cannot be read", str(error), advice)
            return None
    log.add(
        "warning",
        "skeleton without sigmas",
        caught,
        lambda item: str(item.message),
        "Without them OKS and AP are rough.",
    )
    says_pairs = "flip_pairs" in with_overrides(category, overrides)
    unpaired = not says_pairs and not skeleton.flip_pairs and skeleton.num_keypoints > 1
    log.add(
        "warning",
        "skeleton without left and right",
        [skeleton.keypoints] if unpaired else [],
        lambda names: f"keypoints {', '.join(names[:5])}",
        "A mirror would exchange nothing: set data.skeleton.flip_pairs, or write them into the category ([] for none).",
    )
    return skeleton


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
