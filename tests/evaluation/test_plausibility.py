from typing import Any

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.plausibility import find_doubts
from posedy.skeleton import COCO17

Records = list[dict[str, Any]]


@pytest.fixture
def exact(annotations: dict[str, Any]) -> Records:
    """The labeled persons of the annotations as results."""
    return [
        {key: person[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 0.9}
        for person in annotations["annotations"]
        if person["num_keypoints"] and not person["iscrowd"]
    ]


def doubts_of(annotations: dict[str, Any], results: Records) -> list[str]:
    gt = GroundTruth.from_coco(annotations)
    return find_doubts(gt, results, evaluate_keypoints(gt, results))


def transform(results: Records, scale: float, shift: float = 0) -> Records:
    return [
        {**result, "keypoints": [v if i % 3 == 2 else v * scale + shift for i, v in enumerate(result["keypoints"])]}
        for result in results
    ]


def swap_axes(results: Records) -> Records:
    return [
        {**result, "keypoints": [v for i in range(0, 51, 3) for v in (values[i + 1], values[i], values[i + 2])]}
        for result in results
        for values in [result["keypoints"]]
    ]


def group_axes(results: Records) -> Records:
    return [{**result, "keypoints": [v for i in range(3) for v in result["keypoints"][i::3]]} for result in results]


def exchange_sides(results: Records) -> Records:
    flipped = list(COCO17.flip_permutation)
    return [{**r, "keypoints": np.reshape(r["keypoints"], (-1, 3))[flipped].ravel().tolist()} for r in results]


def move_most(results: Records) -> Records:
    """Predicts all keypoints in the person's extent: of other images, but for two persons, of whom they are too low."""
    moved = []
    for index, result in enumerate(results):
        points = np.reshape(result["keypoints"], (-1, 3)).astype(float)
        labeled = points[points[:, 2] > 0, :2]
        points[points[:, 2] == 0, :2] = labeled.mean(axis=0)
        points[:, :2] += 0.3 * np.ptp(labeled, axis=0) if index < 2 else 5000
        moved.append({**result, "keypoints": points.ravel().tolist()})
    return moved


def test_plausible_results_give_no_doubts(annotations: dict[str, Any], noised_results: Records, exact: Records) -> None:
    assert doubts_of(annotations, exact) == []
    assert doubts_of(annotations, noised_results) == []  # two of eleven images have no results


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda results: transform(results, 1 / 640), "fractions"),
        (lambda results: transform(results, 100 / 640), "percent"),
        (lambda results: transform(results, 1, 5000), "overlaps"),
        (move_most, "% of the predictions overlap"),
        (lambda results: [{**r, "keypoints": np.roll(r["keypoints"], 1).tolist()} for r in results], "score, x, y"),
        (lambda results: [*results, results[0]], "repeat another one"),
        (swap_axes, "y, x, score"),
        (group_axes, "all x"),
        (exchange_sides, "left and right exchanged it would be 1.000"),
        (lambda results: [result for result in results if result["image_id"] < 50], "images detected"),
        (lambda results: [], "images detected"),
    ],
)
def test_other_forms_and_missing_images_are_named(annotations, exact: Records, change, cause: str) -> None:
    (doubt,) = doubts_of(annotations, change(exact))
    assert cause in doubt


def test_a_bad_network_gives_no_doubts(annotations: dict[str, Any], exact: Records) -> None:
    collapsed = [
        {**result, "keypoints": [v if i % 3 == 2 else result["keypoints"][i % 3] for i, v in enumerate(values)]}
        for result in exact
        for values in [result["keypoints"]]
    ]
    assert doubts_of(annotations, collapsed) == []


def test_areas_of_zero_are_counted(annotations: dict[str, Any], exact: Records) -> None:
    for person in annotations["annotations"]:
        person["area"] = 0
    (doubt,) = doubts_of(annotations, exact)
    assert f"{len(exact)} of {len(exact)} labeled persons" in doubt


def test_the_images_with_results_only_give_no_doubt(annotations: dict[str, Any], exact: Records) -> None:
    gt, few = GroundTruth.from_coco(annotations), exact[:2]
    assert find_doubts(gt, few, evaluate_keypoints(gt, few, "detected"), "detected") == []
