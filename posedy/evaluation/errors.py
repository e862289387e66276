"""What is wrong with predicted keypoints, and what it costs, after Ronchi and Perona (ICCV 2017).

Theirs takes the likest of all truths first, and mends keypoints only as far as the class below; here a keypoint near
its own truth is never a confusion, and mending puts it exactly on the truth: an upper bound of the cost.

With ks(x, t) the similarity of a predicted keypoint x with a true one t (see `MatchedPersons.similarity_to`), each
labelled keypoint of a matched person is

    good       if ks with its own truth >= 0.85
    jitter     if it is in [0.5, 0.85): near the right place
    inversion  else if it is nearer to the other side's truth of the same person, with ks >= 0.5
    swap       else if it is nearer to that keypoint, or its other side, of another person, with ks >= 0.5
    miss       else: near nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posedy.evaluation.coco_metrics import evaluate_keypoints
from posedy.evaluation.matching import MatchedPersons, match_persons
from posedy.evaluation.truth import AnnotationSource, KeypointTruth

ErrorClass = Literal["good", "jitter", "inversion", "swap", "miss"]
ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)
GOOD, NEAR = 0.85, 0.5


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """The classes of predicted keypoints, and what AP would be without each.

    Attributes:
        persons: the truth's persons with their poses.
        classes: (P, K) index into `ERROR_CLASSES`, -1 where the keypoint is not labelled or the person not found.
        ap: of the results as they are.
        ap_without: AP when all keypoints of a class are put where they belong, for each class but "good", and for
            "all" of them.
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
    own = persons.similarity
    other_side = list(persons.skeleton.flip_permutation)
    paired = np.array(other_side) != np.arange(len(other_side))
    inverted, swapped = np.zeros_like(own), np.zeros_like(own)
    for person in np.flatnonzero(persons.found):
        points = persons.predicted[person]
        alike = persons.image_ids == persons.image_ids[person]
        truth, labelled, areas = persons.truth[alike], persons.labelled[alike], persons.areas[alike]
        same = np.where(labelled, persons.similarity_to(points, truth, areas), 0)
        # the similarity is in the size and with the sigma of the keypoint that it is confused with
        opposite = np.where(labelled, persons.similarity_to(points[other_side], truth, areas), 0)[:, other_side]
        opposite[:, ~paired] = 0
        itself = np.flatnonzero(alike) == person
        inverted[person] = opposite[itself][0]
        swapped[person] = np.maximum(same, opposite)[~itself].max(axis=0, initial=0)
    classes = np.full(own.shape, ERROR_CLASSES.index("miss"))
    confused = np.maximum(inverted, swapped) >= NEAR
    classes[confused & (inverted >= swapped)] = ERROR_CLASSES.index("inversion")
    classes[confused & (inverted < swapped)] = ERROR_CLASSES.index("swap")
    classes[own >= NEAR] = ERROR_CLASSES.index("jitter")
    classes[own >= GOOD] = ERROR_CLASSES.index("good")
    classes[~(persons.labelled & persons.found[:, None])] = -1
    return classes


def analyse_errors(
    annotations: AnnotationSource | KeypointTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
) -> ErrorAnalysis:
    """Classifies the keypoints of results and measures AP with each class of errors mended.

    Args:
        annotations: see `evaluate_keypoints`, and so for results, sigmas and errors.
        results: COCO keypoint results.
        sigmas: (K,) of OKS.
    """
    truth = annotations if isinstance(annotations, KeypointTruth) else KeypointTruth.from_coco(annotations)
    persons = match_persons(truth, results, sigmas)
    classes = classify_keypoints(persons)

    def ap(mended: NDArray[np.bool_]) -> float:
        return evaluate_keypoints(truth, _mended(results, persons, mended), sigmas=sigmas)["AP"]

    without = {name: ap(classes == index) for index, name in enumerate(ERROR_CLASSES) if name != "good"}
    return ErrorAnalysis(persons, classes, ap(classes == len(ERROR_CLASSES)), without | {"all": ap(classes > 0)})


def _mended(results: list[dict[str, Any]], persons: MatchedPersons, mended: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The results with the keypoints (P, K) put where the truth has them."""
    copies = list(results)
    for person in np.flatnonzero(mended.any(axis=1)):
        index = persons.results[person]
        triplets = np.array(results[index]["keypoints"], dtype=np.float64).reshape(-1, 3)
        triplets[mended[person], :2] = persons.truth[person, mended[person]]
        copies[index] = {**results[index], "keypoints": triplets.reshape(-1).tolist()}
    return copies
