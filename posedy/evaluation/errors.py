"""Keypoint error analysis: error classes and their AP costs, as defined by Ronchi and Perona (ICCV 2017).

Let ks(x, t) be the similarity of a predicted keypoint x and a ground-truth keypoint t, the summand of OKS.
Each labeled keypoint of a matched person is compared with four kinds of ground-truth keypoints: its own, its
left/right counterpart on the same person, and both of these on every other person in the image. With ks the highest
of these similarities, the keypoint is

    miss       if ks < 0.5, whichever keypoint it is nearest to
    good       if it is nearest to its own keypoint and ks >= 0.85
    jitter     if it is nearest to its own keypoint and ks is in [0.5, 0.85)
    inversion  if it is nearest to the left/right counterpart on the same person
    swap       if it is nearest to a keypoint of another person

To measure the cost of an error class, its keypoints are corrected: each is moved towards its own ground truth until ks
with it is 0.85 for a jitter, 0.5 for a miss, and the unchanged highest ks for an inversion or a swap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import Backend, evaluate_keypoints
from posedy.evaluation.matching import MatchedPersons, match_persons

ErrorClass = Literal["good", "jitter", "inversion", "swap", "miss"]
ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)
GOOD_SIMILARITY, MISS_SIMILARITY = 0.85, 0.5


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """Error classes of predicted keypoints and the AP with each class corrected.

    Attributes:
        persons: ground-truth persons with their matched predictions.
        classes: (P, K) index into `ERROR_CLASSES`, -1 where the keypoint is not labeled or the person not matched.
        ap: AP of the unmodified results.
        ap_corrected: AP with all errors of a class corrected, for each class except "good", and for "all" classes.
    """

    persons: MatchedPersons
    classes: NDArray[np.int64]
    ap: float
    ap_corrected: dict[str, float]

    @property
    def ap_costs(self) -> dict[str, float]:
        """AP gained by correcting each class; the costs of the classes need not sum to that of all."""
        return {name: value - self.ap for name, value in self.ap_corrected.items()}

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number (K, 5) of predictions of each keypoint in each of `ERROR_CLASSES`."""
        return np.stack([(self.classes == index).sum(axis=0) for index in range(len(ERROR_CLASSES))], axis=1)


def _classify(persons: MatchedPersons) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classifies predicted keypoints.

    Returns:
        (P, K) index into `ERROR_CLASSES`, -1 where the keypoint is not labeled or the person not matched, and the
        highest similarity (P, K) with any ground-truth keypoint.
    """
    own = persons.similarity
    inverted, swapped = np.zeros_like(own), np.zeros_like(own)
    # the counterpart of an unpaired keypoint is itself; argmax below resolves this tie in favor of "own"
    counterpart = list(persons.skeleton.flip_permutation)
    _, image_of = np.unique(persons.image_ids, return_inverse=True)
    for members in np.split(np.argsort(image_of, kind="stable"), np.cumsum(np.bincount(image_of))[:-1]):
        gt, labeled, areas = persons.gt_keypoints[members], persons.labeled[members], persons.areas[members]
        for position, person in enumerate(members):
            pred = persons.pred_keypoints[person]
            same = np.where(labeled, persons.compute_similarity(pred, gt, areas), 0)
            flipped = np.where(labeled[:, counterpart], persons.compute_similarity(pred, gt[:, counterpart], areas), 0)
            inverted[person] = flipped[position]
            swapped[person] = np.delete(np.maximum(same, flipped), position, axis=0).max(axis=0, initial=0)
    similarities = np.stack([own, inverted, swapped])
    nearest, highest = similarities.argmax(axis=0), similarities.max(axis=0)
    classes = np.array([ERROR_CLASSES.index(name) for name in ("jitter", "inversion", "swap")])[nearest]
    classes[(nearest == 0) & (highest >= GOOD_SIMILARITY)] = ERROR_CLASSES.index("good")
    classes[highest < MISS_SIMILARITY] = ERROR_CLASSES.index("miss")
    classes[~(persons.labeled & persons.matched[:, None])] = -1
    return classes, highest


def analyze_errors(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> ErrorAnalysis:
    """Classifies predicted keypoints and computes AP with each error class corrected.

    Args:
        annotations: see `evaluate_keypoints`, also for the errors raised.
        results: COCO keypoint results.
        sigmas: (K,) OKS sigmas; by default the category's.
        backend: evaluation library that computes AP.
    """
    gt = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    persons = match_persons(gt, results, sigmas)
    classes, highest = _classify(persons)
    corrected = _correct_keypoints(persons, classes, highest)

    def compute_ap(mask: NDArray[np.bool_]) -> float:
        replaced = _replace_keypoints(results, persons, corrected, mask)
        return evaluate_keypoints(gt, replaced, sigmas=sigmas, backend=backend)["AP"]

    ap_corrected = {name: compute_ap(classes == index) for index, name in enumerate(ERROR_CLASSES) if name != "good"}
    ap = compute_ap(np.zeros_like(classes, dtype=bool))
    return ErrorAnalysis(persons, classes, ap, ap_corrected | {"all": compute_ap(classes > 0)})


def _correct_keypoints(
    persons: MatchedPersons, classes: NDArray[np.int64], highest: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Moves predictions towards their ground truth, to the distance of the corrected similarity: (P, K, 2).

    From ks = exp(-d^2 / (2 (2 sigma)^2 area)), d = 2 sigma sqrt(-2 ln(ks) area).
    """
    similarity = highest.copy()
    similarity[classes == ERROR_CLASSES.index("jitter")] = GOOD_SIMILARITY
    similarity[classes == ERROR_CLASSES.index("miss")] = MISS_SIMILARITY
    # the factor prevents rounding to just below an OKS threshold
    similarity = np.clip(similarity * (1 + 1e-9), MISS_SIMILARITY, 1)
    distance = 2 * persons.sigmas * np.sqrt(-2 * np.log(similarity) * persons.areas[:, None])
    offset = persons.pred_keypoints - persons.gt_keypoints
    length = np.linalg.norm(offset, axis=-1, keepdims=True)
    direction = np.divide(offset, length, out=np.zeros_like(offset), where=length > 0)
    return persons.gt_keypoints + direction * distance[..., None]


def _replace_keypoints(
    results: list[dict[str, Any]], persons: MatchedPersons, keypoints: NDArray[np.float64], mask: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Replaces the masked keypoints (P, K) of the matched results by those given (P, K, 2); returns copies."""
    copies = list(results)
    for person in np.flatnonzero(mask.any(axis=1)):
        index = persons.result_indices[person]
        triplets = np.array(results[index]["keypoints"], dtype=np.float64).reshape(-1, 3)
        triplets[mask[person], :2] = keypoints[person, mask[person]]
        copies[index] = {**results[index], "keypoints": triplets.reshape(-1).tolist()}
    return copies
