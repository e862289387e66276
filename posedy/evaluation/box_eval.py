"""Evaluation of detected person boxes: COCO's AP, and recall at a number of false boxes per image."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import load_results, make_coco

FALSE_BOXES = (1, 2, 5)
"""Numbers of false boxes per image at which recall is given."""
_KEYS = ("image_id", "category_id", "bbox", "score")


@dataclass(frozen=True)
class ThresholdMetrics:
    """Matches at an IoU of 0.5 of the boxes with scores from a threshold on.

    Attributes:
        threshold: the minimum score.
        recall: matched fraction of the persons with labeled keypoints.
        precision: matched fraction of the boxes; those matched to crowds do not count. NaN without boxes.
        false_boxes: unmatched boxes per image.
        images_with_false_boxes: fraction of the images.
    """

    threshold: float
    recall: float
    precision: float
    false_boxes: float
    images_with_false_boxes: float


@dataclass(frozen=True, eq=False)
class BoxEvaluation:
    """The result of an evaluation of boxes.

    Attributes:
        metrics: AP, AP50 and AP75 of all persons, as COCOeval computes them.
        num_images: number of images.
        num_labeled: number of persons with labeled keypoints.
        image: (D,) index of the image of each box that is not matched to a crowd, in descending order of scores.
        scores: (D,) their scores.
        is_false: (D,) whether a box is unmatched at an IoU of 0.5.
        is_labeled: (D,) whether it is matched to a person with labeled keypoints.
    """

    metrics: dict[str, float]
    num_images: int
    num_labeled: int
    image: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_false: NDArray[np.bool_]
    is_labeled: NDArray[np.bool_]

    def recall_at(self, false_boxes: float) -> float:
        """Returns the recall of persons with labeled keypoints at a number of false boxes per image."""
        kept = np.cumsum(self.is_false) <= false_boxes * self.num_images
        return float(self.is_labeled[kept].sum() / self.num_labeled)

    def at_threshold(self, threshold: float) -> ThresholdMetrics:
        """Returns the metrics of the boxes with scores from a threshold on."""
        kept = self.scores >= threshold
        is_false = self.is_false[kept]
        return ThresholdMetrics(
            threshold,
            recall=float(self.is_labeled[kept].sum() / self.num_labeled),
            precision=float(1 - is_false.mean()) if len(is_false) else float("nan"),
            false_boxes=float(is_false.sum() / self.num_images),
            images_with_false_boxes=len(np.unique(self.image[kept][is_false])) / self.num_images,
        )


def evaluate_boxes(annotations: AnnotationSource | GroundTruth, results: Sequence[dict[str, Any]]) -> BoxEvaluation:
    """Evaluates boxes of persons against all annotated persons; boxes in crowds are neither true nor false.

    AP counts persons without labeled keypoints too. COCOeval keeps the 100 highest-scoring boxes of an image.

    Args:
        annotations: a COCO annotation file, its content, or a `GroundTruth`.
        results: COCO detection results: records with image_id, category_id, bbox and score, as `posedy detect
            --annotations` writes them.

    Raises:
        OSError: if the annotation file cannot be read.
        ValueError: if a file is invalid, the results belong to other images, or there is no person to be detected.
    """
    gt = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    labeled = {person["id"] for person in gt.labeled}
    if not labeled:
        raise ValueError(f"{gt.source}: recall is undefined because no person has labeled keypoints")
    evaluation = match_boxes(gt, results)
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    metrics = dict(zip(("AP", "AP50", "AP75"), map(float, evaluation.stats[:3]), strict=True))
    # the first images of evalImgs are those of the first area range, which has all sizes
    per_image = evaluation.evalImgs[: len(gt.image_ids)]
    columns: list[list[NDArray[Any]]] = []
    for index, matches in enumerate(per_image):
        if matches is None:
            continue
        counted = ~matches["dtIgnore"][0].astype(bool)
        matched = matches["dtMatches"][0][counted]
        columns.append(
            [
                np.full(len(matched), index),
                np.asarray(matches["dtScores"], dtype=np.float64)[counted],
                matched == 0,
                np.isin(matched, list(labeled)),
            ]
        )
    image, scores, is_false, is_labeled = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(-scores, kind="stable")
    return BoxEvaluation(
        metrics, len(gt.image_ids), len(labeled), image[order], scores[order], is_false[order], is_labeled[order]
    )


def match_boxes(gt: GroundTruth, results: Sequence[dict[str, Any]]) -> COCOeval:
    """Matches boxes to persons with COCOeval, after whose `evaluate` it returns it; see `evaluate_boxes`."""
    category = gt.category["id"]
    for index, result in enumerate(results):
        if missing := [key for key in _KEYS if key not in result]:
            raise ValueError(f"result {index} has no {missing[0]}: expected {', '.join(_KEYS)}")
    copies = [{key: result[key] for key in _KEYS} for result in results if result["category_id"] == category]
    unknown = {result["image_id"] for result in copies}.difference(gt.image_ids)
    if unknown:
        raise ValueError(f"results contain image ids that are not in {gt.source}, such as {min(unknown, key=str)!r}")
    with redirect_stdout(io.StringIO()):
        coco_gt = make_coco(gt, [dict(person) for person in gt.annotations])
        evaluation = COCOeval(coco_gt, load_results(coco_gt, gt, copies), "bbox")
        evaluation.evaluate()
    return evaluation
