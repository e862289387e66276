"""Which predicted pose is whose: the truth's persons with the results that COCOeval's greedy matching gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import match_results
from posedy.skeleton import Skeleton

LOOSE = 0.1
"""The OKS from which a pose is an attempt at a person, so that bad ones are seen too (Ronchi and Perona, 2017)."""


@dataclass(frozen=True, eq=False)
class MatchedPersons:
    """The P labeled persons of the truth in its order, and the pose that was predicted for each.

    Attributes:
        skeleton: the meaning of the K keypoints.
        sigmas: (K,) of OKS.
        image_ids: (P,).
        truth: (P, K, 2) in image pixels.
        visibility: (P, K) 0 not labeled, 1 labeled but hidden, 2 visible.
        areas: (P,) of the persons in square pixels.
        boxes: (P, 4) xywh.
        results: (P,) index of the pose among the results, -1 if none was matched.
        predicted: (P, K, 2) in image pixels, NaN if none.
        keypoint_scores: (P, K), 0 if none.
        scores: (P,) of the poses, NaN if none.
        counted: (R,) whether each result counts: of the category, among an image's 20 best, and not matched with what
            COCO ignores (crowds, persons without labeled keypoints).
    """

    skeleton: Skeleton
    sigmas: NDArray[np.float64]
    image_ids: NDArray[Any]
    truth: NDArray[np.float64]
    visibility: NDArray[np.int64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    results: NDArray[np.int64]
    predicted: NDArray[np.float64]
    keypoint_scores: NDArray[np.float64]
    scores: NDArray[np.float64]
    counted: NDArray[np.bool_]

    @property
    def labeled(self) -> NDArray[np.bool_]:
        """(P, K)."""
        return self.visibility > 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """(P,) whether a pose was matched."""
        return self.results >= 0

    @property
    def similarity(self) -> NDArray[np.float64]:
        """(P, K) of each predicted keypoint with its truth, 0 where the person was not found."""
        return np.where(self.found[:, None], self.similarity_to(self.predicted, self.truth, self.areas), 0)

    @property
    def oks(self) -> NDArray[np.float64]:
        """(P,) the mean similarity of labeled keypoints, 0 where the person was not found."""
        return mean_of_labeled(self.similarity, self.labeled)

    def similarity_to(self, points: ArrayLike, truth: ArrayLike, areas: ArrayLike) -> NDArray[np.float64]:
        """The similarity of keypoints (..., K, 2) with others: exp(-d^2 / (2 (2 sigma_k)^2 area)), as in COCO's OKS."""
        squared = np.square(np.asarray(points) - np.asarray(truth)).sum(axis=-1)
        scale = (2 * self.sigmas) ** 2 * (np.asarray(areas)[..., None] + np.spacing(1.0))
        return np.exp(-squared / scale / 2)


def mean_of_labeled(similarity: NDArray[np.float64], labeled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """OKS (P,) from the similarity of keypoints (P, K) over those that are labeled (P, K), 0 where none is."""
    return np.asarray((similarity * labeled).sum(axis=1) / np.maximum(labeled.sum(axis=1), 1))


def match_persons(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
    oks_threshold: float = LOOSE,
) -> MatchedPersons:
    """Gives each labeled person the pose that COCOeval matches it with at one threshold.

    From the highest score down, each of an image's 20 best poses takes the person left that it is most similar to.

    Args:
        annotations: see `evaluate_keypoints`, and so for results and errors.
        results: COCO keypoint results.
        sigmas: (K,) of OKS; by default the category's.
        oks_threshold: the least OKS of a match.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    evaluation = match_results(truth, results, sigmas=sigmas, oks_thresholds=[oks_threshold])
    matched_with: dict[int, float] = {}
    # loadRes counts ids from 1 in the order that it got
    of_category = [index for index, result in enumerate(results) if result["category_id"] == truth.category["id"]]
    counted = np.zeros(len(results), dtype=bool)
    for matched in evaluation.evalImgs[: len(evaluation.params.imgIds)]:  # of persons of all sizes
        if matched is not None:
            matched_with |= dict(zip(matched["gtIds"], matched["gtMatches"][0], strict=True))
            for result_id, ignored in zip(matched["dtIds"], matched["dtIgnore"][0], strict=True):
                counted[of_category[result_id - 1]] = not ignored
    people = truth.labeled
    K = truth.num_keypoints
    keypoints = np.array([person["keypoints"] for person in people], dtype=np.float64).reshape(-1, K, 3)
    indices = np.array([_index(matched_with.get(person["id"], 0), of_category) for person in people], dtype=np.int64)
    poses, scores = np.full((len(people), K, 3), [np.nan, np.nan, 0]), np.full(len(people), np.nan)
    for person, index in enumerate(indices):
        if index >= 0:
            poses[person] = np.reshape(results[index]["keypoints"], (K, 3))
            scores[person] = results[index]["score"]
    return MatchedPersons(
        skeleton=Skeleton.from_coco_category(truth.category),
        sigmas=np.asarray(evaluation.params.kpt_oks_sigmas, dtype=np.float64),
        image_ids=np.array([person["image_id"] for person in people]),
        truth=keypoints[..., :2],
        visibility=keypoints[..., 2].astype(np.int64),
        areas=np.array([person["area"] for person in people], dtype=np.float64),
        boxes=np.array([person["bbox"] for person in people], dtype=np.float64).reshape(-1, 4),
        results=indices,
        predicted=poses[..., :2],
        keypoint_scores=poses[..., 2],
        scores=scores,
        counted=counted,
    )


def _index(result_id: float, of_category: list[int]) -> int:
    """The index of a result from the id that loadRes gave it; COCOeval writes 0 for no match."""
    return of_category[int(result_id) - 1] if result_id > 0 else -1
