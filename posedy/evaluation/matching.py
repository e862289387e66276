"""Greedy matching of predictions to ground truth, as in COCOeval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import match_results
from posedy.skeleton import Skeleton

MIN_MATCH_OKS = 0.1
"""Minimum OKS of a match in error analysis, low so that inaccurate poses are matched too (Ronchi and Perona, 2017)."""


@dataclass(frozen=True, eq=False)
class MatchedPersons:
    """The P labeled persons of the ground truth, in its order, with their matched predictions.

    Attributes:
        skeleton: names and pairs of the K keypoints.
        sigmas: (K,) OKS sigmas.
        image_ids: (P,) image ids.
        gt_keypoints: (P, K, 2) ground-truth keypoints in image pixels.
        visibility: (P, K) 0 not labeled, 1 labeled but occluded, 2 visible.
        areas: (P,) areas of the persons in square pixels.
        boxes: (P, 4) ground-truth boxes, xywh.
        result_indices: (P,) index of the matched result, -1 if there is none.
        pred_keypoints: (P, K, 2) predicted keypoints in image pixels, NaN if there is no match.
        keypoint_scores: (P, K) predicted keypoint scores, 0 if there is no match.
        scores: (P,) scores of the matched results, NaN if there is no match.
        counted: (R,) whether COCOeval counts each result: it is of the evaluated category, among the 20
            highest-scoring of its image, and not matched to ignored ground truth (crowds, persons without labeled
            keypoints).
    """

    skeleton: Skeleton
    sigmas: NDArray[np.float64]
    image_ids: NDArray[Any]
    gt_keypoints: NDArray[np.float64]
    visibility: NDArray[np.int64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    result_indices: NDArray[np.int64]
    pred_keypoints: NDArray[np.float64]
    keypoint_scores: NDArray[np.float64]
    scores: NDArray[np.float64]
    counted: NDArray[np.bool_]

    @property
    def labeled(self) -> NDArray[np.bool_]:
        """Mask (P, K) of labeled keypoints."""
        return self.visibility > 0

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Mask (P,) of persons with a matched result."""
        return self.result_indices >= 0

    @property
    def similarity(self) -> NDArray[np.float64]:
        """Keypoint similarity (P, K) of predictions and ground truth, 0 for unmatched persons."""
        similarity = self.compute_similarity(self.pred_keypoints, self.gt_keypoints, self.areas)
        return np.where(self.matched[:, None], similarity, 0)

    @property
    def oks(self) -> NDArray[np.float64]:
        """OKS (P,) of the matched results, 0 for unmatched persons."""
        return mean_over_labeled(self.similarity, self.labeled)

    def compute_similarity(
        self, keypoints: ArrayLike, gt_keypoints: ArrayLike, areas: ArrayLike
    ) -> NDArray[np.float64]:
        """Computes the keypoint similarity exp(-d^2 / (2 (2 sigma_k)^2 area)) of COCO's OKS.

        Args:
            keypoints: (..., K, 2).
            gt_keypoints: (..., K, 2).
            areas: (...) areas of the ground-truth persons.

        Returns:
            (..., K) keypoint similarities.
        """
        squared = np.square(np.asarray(keypoints) - np.asarray(gt_keypoints)).sum(axis=-1)
        scale = (2 * self.sigmas) ** 2 * (np.asarray(areas)[..., None] + np.spacing(1.0))
        return np.exp(-squared / scale / 2)


def mean_over_labeled(similarity: NDArray[np.float64], labeled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Averages keypoint similarities (P, K) over labeled keypoints (P, K): OKS (P,), 0 where none is labeled."""
    return np.asarray((similarity * labeled).sum(axis=1) / np.maximum(labeled.sum(axis=1), 1))


def match_persons(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
) -> MatchedPersons:
    """Matches results to labeled persons as COCOeval does at the OKS threshold `MIN_MATCH_OKS`.

    In descending order of score, each of an image's 20 highest-scoring results is matched to the unmatched person with
    the highest OKS.

    Args:
        annotations: see `evaluate_keypoints`, also for the errors raised.
        results: COCO keypoint results.
        sigmas: (K,) OKS sigmas; by default the category's.
    """
    gt = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    evaluation = match_results(gt, results, sigmas=sigmas, oks_thresholds=[MIN_MATCH_OKS])
    matched_ids: dict[int, float] = {}
    # loadRes numbers the results it receives from 1
    category_indices = [index for index, result in enumerate(results) if result["category_id"] == gt.category["id"]]
    counted = np.zeros(len(results), dtype=bool)
    for image_matches in evaluation.evalImgs[: len(evaluation.params.imgIds)]:  # the first area range: all sizes
        if image_matches is not None:
            matched_ids |= dict(zip(image_matches["gtIds"], image_matches["gtMatches"][0], strict=True))
            for result_id, ignored in zip(image_matches["dtIds"], image_matches["dtIgnore"][0], strict=True):
                counted[category_indices[result_id - 1]] = not ignored
    persons = gt.labeled
    K = gt.num_keypoints
    gt_keypoints = np.array([person["keypoints"] for person in persons], dtype=np.float64).reshape(-1, K, 3)
    result_indices = np.array(
        [_to_result_index(matched_ids.get(person["id"], 0), category_indices) for person in persons], dtype=np.int64
    )
    pred_keypoints, scores = np.full((len(persons), K, 3), [np.nan, np.nan, 0]), np.full(len(persons), np.nan)
    for person, index in enumerate(result_indices):
        if index >= 0:
            pred_keypoints[person] = np.reshape(results[index]["keypoints"], (K, 3))
            scores[person] = results[index]["score"]
    return MatchedPersons(
        skeleton=Skeleton.from_coco_category(gt.category),
        sigmas=np.asarray(evaluation.params.kpt_oks_sigmas, dtype=np.float64),
        image_ids=np.array([person["image_id"] for person in persons]),
        gt_keypoints=gt_keypoints[..., :2],
        visibility=gt_keypoints[..., 2].astype(np.int64),
        areas=np.array([person["area"] for person in persons], dtype=np.float64),
        boxes=np.array([person["bbox"] for person in persons], dtype=np.float64).reshape(-1, 4),
        result_indices=result_indices,
        pred_keypoints=pred_keypoints[..., :2],
        keypoint_scores=pred_keypoints[..., 2],
        scores=scores,
        counted=counted,
    )


def _to_result_index(result_id: float, category_indices: list[int]) -> int:
    """Converts a result id of loadRes to an index into the results; COCOeval writes id 0 for no match."""
    return category_indices[int(result_id) - 1] if result_id > 0 else -1
