"""What numbers are made of: by keypoint, and by the size, the labelled keypoints and the neighbours of persons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.evaluation.coco_metrics import evaluate_keypoints
from posedy.evaluation.matching import MatchedPersons
from posedy.evaluation.truth import KeypointTruth
from posedy.geometry import box_iou, xywh_to_xyxy

PCK_FRACTIONS = (0.05, 0.1, 0.2)
"""Of the longer side of a person's box."""
_MEDIUM, _LARGE = 32**2, 96**2  # COCO's areas in square pixels


@dataclass(frozen=True)
class Part:
    """The numbers of some of the persons.

    Attributes:
        persons: how many.
        ap: with all others ignored, as COCO ignores crowds; NaN for no person.
        ar: the mean over COCO's thresholds of the share of these persons that is found.
        oks: mean OKS with the matched pose, 0 for a person without one.
    """

    persons: int
    ap: float
    ar: float
    oks: float


@dataclass(frozen=True, eq=False)
class KeypointNumbers:
    """The numbers of each of K keypoints over the persons for whom it is labelled; NaN if nobody is.

    Attributes:
        labelled: (K,) how many.
        similarity: (K,) mean similarity with the truth (a keypoint's part in OKS); 0 where the person was not found.
        pck: fraction of the box -> (K,) the share nearer to the truth than that (PCK, Yang and Ramanan, 2013).
    """

    labelled: NDArray[np.int64]
    similarity: NDArray[np.float64]
    pck: dict[float, NDArray[np.float64]]


def keypoint_numbers(persons: MatchedPersons) -> KeypointNumbers:
    """How well each keypoint was found; persons without a pose count as missed."""
    labelled = persons.labelled
    counts = labelled.sum(axis=0)

    def mean(values: NDArray) -> NDArray[np.float64]:
        sums = (values * labelled).sum(axis=0)
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    distances = np.linalg.norm(persons.predicted - persons.truth, axis=-1)
    longer_sides = persons.boxes[:, 2:].max(axis=1)[:, None]
    near = {fraction: mean(distances <= fraction * longer_sides) for fraction in PCK_FRACTIONS}  # NaN is not near
    return KeypointNumbers(counts, mean(persons.similarity), near)


def break_down(
    truth: KeypointTruth,
    results: list[dict[str, Any]],
    persons: MatchedPersons,
    sigmas: Sequence[float] | None = None,
) -> dict[str, dict[str, Part]]:
    """AP, AR and OKS for parts of the persons: {"size": {"medium": ...}, "labelled keypoints": ..., "neighbours": ...}.

    Args:
        truth: the annotation file.
        results: COCO keypoint results on it.
        persons: `match_persons` of both.
        sigmas: (K,) of OKS; by default the category's.
    """
    counts = persons.labelled.sum(axis=1)
    third = persons.skeleton.num_keypoints / 3
    overlap = _overlaps(truth)
    groups = {
        "size": {
            "small (under 32x32)": persons.areas < _MEDIUM,
            "medium": (persons.areas >= _MEDIUM) & (persons.areas < _LARGE),
            "large (from 96x96)": persons.areas >= _LARGE,
        },
        "labelled keypoints": {
            f"up to {int(third)}": counts <= third,
            f"{int(third) + 1} to {int(2 * third)}": (counts > third) & (counts <= 2 * third),
            f"over {int(2 * third)}": counts > 2 * third,
        },
        "neighbours (IoU of boxes)": {
            "none": overlap == 0,
            "under 0.1": (overlap > 0) & (overlap < 0.1),
            "0.1 to 0.3": (overlap >= 0.1) & (overlap < 0.3),
            "over 0.3": overlap >= 0.3,
        },
    }
    return {
        title: {name: _part(truth, results, persons, chosen, sigmas) for name, chosen in group.items()}
        for title, group in groups.items()
    }


def _part(
    truth: KeypointTruth,
    results: list[dict[str, Any]],
    persons: MatchedPersons,
    chosen: NDArray[np.bool_],
    sigmas: Sequence[float] | None,
) -> Part:
    if not chosen.any():
        return Part(0, np.nan, np.nan, np.nan)
    others = {person["id"] for person, taken in zip(truth.labelled, chosen, strict=True) if not taken}
    annotations = tuple(person | ({"iscrowd": 1} if person["id"] in others else {}) for person in truth.annotations)
    metrics = evaluate_keypoints(replace(truth, annotations=annotations), results, sigmas=sigmas)
    return Part(int(chosen.sum()), metrics["AP"], metrics["AR"], float(persons.oks[chosen].mean()))


def _overlaps(truth: KeypointTruth) -> NDArray[np.float64]:
    """The largest IoU (P,) of each labelled person's box with another annotated person's, labelled or not."""
    everybody = truth.annotations
    boxes = xywh_to_xyxy(np.array([person["bbox"] for person in everybody], dtype=np.float64).reshape(-1, 4))
    images = np.array([person["image_id"] for person in everybody])
    largest = {}
    for index, person in enumerate(everybody):
        others = images == images[index]
        others[index] = False
        largest[person["id"]] = float(box_iou(boxes[index : index + 1], boxes[others]).max(initial=0))
    return np.array([largest[person["id"]] for person in truth.labelled])
