"""What is wrong with predicted keypoints, and what it costs, as Ronchi and Perona define it (ICCV 2017).

With ks(x, t) the similarity of a predicted keypoint x with a true one t (see `MatchedPersons.similarity_to`), each
labeled keypoint of a matched person goes to the truth that it is most similar to: its own, that of the other side of
the same person, or that of this keypoint or its other side of another person in the photo. With ks there, it is

    miss       if ks < 0.5, whosever it is
    good       if it is nearest its own and ks >= 0.85
    jitter     if it is nearest its own and ks is in [0.5, 0.85)
    inversion  if it is nearest the other side's of the same person
    swap       if it is nearest another person's

An error is mended as far as it goes without being another one: put at the distance from its own truth that gives a
jitter ks = 0.85, a miss ks = 0.5, and an inversion or a swap the ks that it has where it is.
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
GOOD, NEAR = 0.85, 0.5


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """The classes of predicted keypoints, and what AP would be without each.

    Attributes:
        persons: the truth's persons with their poses.
        classes: (P, K) index into `ERROR_CLASSES`, -1 where the keypoint is not labeled or the person not found.
        ap: of the results as they are.
        ap_without: AP with all errors of a class mended, for each class but "good", and for "all" of them.
    """

    persons: MatchedPersons
    classes: NDArray[np.int64]
    ap: float
    ap_without: dict[str, float]

    @property
    def costs(self) -> dict[str, float]:
        """The AP that each class costs; the parts need not sum to that of all."""
        return {name: value - self.ap for name, value in self.ap_without.items()}

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K, 5): how many predictions of each keypoint are of each of `ERROR_CLASSES`."""
        return np.stack([(self.classes == index).sum(axis=0) for index in range(len(ERROR_CLASSES))], axis=1)


def classify_keypoints(persons: MatchedPersons) -> NDArray[np.int64]:
    """The class (P, K) of each predicted keypoint as an index into `ERROR_CLASSES`; -1 if there is none to judge."""
    return _classify(persons)[0]


def _classify(persons: MatchedPersons) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The classes (P, K) and the similarity (P, K) with the truth that each keypoint is most similar to."""
    own = persons.similarity
    inverted, swapped = np.zeros_like(own), np.zeros_like(own)
    # for a keypoint without another side that is its own truth once more, which comes first
    other_side = list(persons.skeleton.flip_permutation)
    _, image_of = np.unique(persons.image_ids, return_inverse=True)
    for members in np.split(np.argsort(image_of, kind="stable"), np.cumsum(np.bincount(image_of))[:-1]):
        truth, labeled, areas = persons.truth[members], persons.labeled[members], persons.areas[members]
        for place, person in enumerate(members):
            points = persons.predicted[person]
            same = np.where(labeled, persons.similarity_to(points, truth, areas), 0)
            mirrored = np.where(labeled[:, other_side], persons.similarity_to(points, truth[:, other_side], areas), 0)
            inverted[person] = mirrored[place]
            swapped[person] = np.delete(np.maximum(same, mirrored), place, axis=0).max(axis=0, initial=0)
    of_each = np.stack([own, inverted, swapped])
    highest = of_each.max(axis=0)
    names = np.array([ERROR_CLASSES.index(name) for name in ("jitter", "inversion", "swap")])
    classes = names[of_each.argmax(axis=0)]
    classes[(of_each.argmax(axis=0) == 0) & (highest >= GOOD)] = ERROR_CLASSES.index("good")
    classes[highest < NEAR] = ERROR_CLASSES.index("miss")
    classes[~(persons.labeled & persons.found[:, None])] = -1
    return classes, highest


def analyze_errors(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> ErrorAnalysis:
    """Classifies the keypoints of results and measures AP with each class of errors mended.

    Args:
        annotations: see `evaluate_keypoints`, and so for results, sigmas, backend and errors.
        results: COCO keypoint results.
        sigmas: (K,) of OKS.
        backend: what computes AP.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    persons = match_persons(truth, results, sigmas)
    classes, highest = _classify(persons)
    belongs = _mended_points(persons, classes, highest)

    def ap(mended: NDArray[np.bool_]) -> float:
        return evaluate_keypoints(truth, _moved(results, persons, belongs, mended), sigmas=sigmas, backend=backend)[
            "AP"
        ]

    without = {name: ap(classes == index) for index, name in enumerate(ERROR_CLASSES) if name != "good"}
    return ErrorAnalysis(persons, classes, ap(classes == len(ERROR_CLASSES)), without | {"all": ap(classes > 0)})


def _mended_points(
    persons: MatchedPersons, classes: NDArray[np.int64], highest: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where errors belong (P, K, 2): on the line from their own truth, at the distance of the ks that mends them.

    From ks = exp(-d^2 / (2 (2 sigma)^2 area)), d = 2 sigma sqrt(-2 ln(ks) area).
    """
    wanted = highest.copy()
    wanted[classes == ERROR_CLASSES.index("jitter")] = GOOD
    wanted[classes == ERROR_CLASSES.index("miss")] = NEAR
    wanted = np.clip(wanted * (1 + 1e-9), NEAR, 1)  # rounding must not put it under a threshold of OKS
    distance = 2 * persons.sigmas * np.sqrt(-2 * np.log(wanted) * persons.areas[:, None])
    away = persons.predicted - persons.truth
    length = np.linalg.norm(away, axis=-1, keepdims=True)
    direction = np.divide(away, length, out=np.zeros_like(away), where=length > 0)
    return persons.truth + direction * distance[..., None]


def _moved(
    results: list[dict[str, Any]], persons: MatchedPersons, places: NDArray[np.float64], moved: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """The results with some keypoints (P, K) put at other places (P, K, 2)."""
    copies = list(results)
    for person in np.flatnonzero(moved.any(axis=1)):
        index = persons.results[person]
        triplets = np.array(results[index]["keypoints"], dtype=np.float64).reshape(-1, 3)
        triplets[moved[person], :2] = places[person, moved[person]]
        copies[index] = {**results[index], "keypoints": triplets.reshape(-1).tolist()}
    return copies
