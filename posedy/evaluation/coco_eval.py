"""COCO keypoint metrics, computed with pycocotools or the faster hotcoco."""

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.data.coco_results import check_results
from posedy.data.tables import number_rows
from posedy.skeleton import Skeleton

METRIC_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")

Images = Literal["all", "detected"] | Sequence[int | str]
Backend = Literal["pycocotools", "hotcoco"]


def evaluate_keypoints(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> dict[str, float]:
    """Computes the COCO keypoint metrics, AP and AR, as COCOeval does.

    Results are neither rescored nor suppressed. COCOeval keeps the 20 highest-scoring results of an image. The area of
    an unmatched result is that of its `bbox` if every result has one, otherwise that of the extent of its keypoints.
    Results of categories other than the one with keypoints are ignored.

    Args:
        annotations: a COCO annotation file, its content, or a `GroundTruth`.
        results: COCO keypoint results; extra keys are allowed.
        images: "all" images of the annotation file, "detected" for images with results only, or image ids.
        sigmas: (K,) OKS sigmas; by default those of the category (COCO's for COCO keypoints).
        backend: evaluation library; "hotcoco" (`pip install 'posedy[fast]'`) returns the same values faster.

    Returns:
        `METRIC_NAMES` mapped to values in [0, 1]; NaN for a size class (m: 32^2 to 96^2 square pixels, l: larger)
        without ground truth.

    Raises:
        OSError: if the annotation file cannot be read.
        ValueError: if the ground truth or the results are invalid or do not belong together, if no evaluated image has
            a labeled person (AP is undefined), or if the backend is not installed.
    """
    if backend == "hotcoco":
        stats = _evaluate_with_hotcoco(_prepare_inputs(annotations, results, images, sigmas))
    else:
        evaluation = match_results(annotations, results, images, sigmas)
        with redirect_stdout(io.StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        stats = evaluation.stats.tolist()
    # COCOeval returns -1 for undefined values.
    values = [float(value) if value >= 0 else math.nan for value in stats]
    return dict(zip(METRIC_NAMES, values, strict=True))


def check_evaluation(gt: GroundTruth, backend: Backend) -> None:
    """Checks before a long prediction that its results can be evaluated.

    Raises:
        ValueError: if no image has a labeled person, or the backend is not installed.
    """
    if not gt.labeled:
        raise ValueError(f"{gt.source}: AP is undefined because num_keypoints is 0 for every person")
    if backend == "hotcoco":
        _import_hotcoco()


def match_results(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
    sigmas: Sequence[float] | None = None,
    oks_thresholds: Sequence[float] | None = None,
) -> COCOeval:
    """Matches results to ground truth with COCOeval, without accumulating them.

    Arguments and errors are those of `evaluate_keypoints`; `oks_thresholds` default to 0.5, 0.55 .. 0.95 as in COCO.

    Returns:
        COCOeval after `evaluate`, before `accumulate`.
    """
    inputs = _prepare_inputs(annotations, results, images, sigmas)
    with redirect_stdout(io.StringIO()):
        coco_gt = make_coco(inputs.gt, [dict(annotation) for annotation in inputs.gt.annotations])
        coco_results = load_results(coco_gt, inputs.gt, _copy_results(inputs.gt, results))
        evaluation = COCOeval(coco_gt, coco_results, "keypoints")
        evaluation.params.imgIds = inputs.images
        evaluation.params.kpt_oks_sigmas = inputs.sigmas
        if oks_thresholds is not None:
            evaluation.params.iouThrs = np.asarray(oks_thresholds, dtype=np.float64)
        evaluation.evaluate()
    return evaluation


def evaluated_images(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
) -> list[Any]:
    """Returns the sorted ids of the images that `evaluate_keypoints` evaluates.

    Raises:
        OSError: if the annotation file cannot be read.
        ValueError: if the ground truth or the results are invalid or do not belong together, or if no image is left.
    """
    gt = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    _check_results_match(gt, results)
    if isinstance(images, str):
        if images == "all":
            return list(gt.image_ids)
        if images != "detected":
            raise ValueError(f"images: expected 'all', 'detected' or a sequence of image ids, got {images!r}")
        selected = {result["image_id"] for result in _select_category(gt, results)}
        if not selected:
            raise ValueError("images='detected': expected at least one result, got none: use images='all'")
    else:
        selected = set(images)
        if not selected:
            raise ValueError("images: expected at least one image id, got an empty sequence")
        if unknown := sorted(selected.difference(gt.image_ids), key=str):
            raise ValueError(f"images: {gt.source} has no image ids {_preview(unknown)}")
    return [image_id for image_id in gt.image_ids if image_id in selected]


def metrics_to_json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Converts metrics to JSON values, with None (null) in place of NaN."""
    return {name: None if math.isnan(value) else float(value) for name, value in metrics.items()}


def format_number(value: float, form: str = ".3f") -> str:
    """Formats a metric with a format specification, by default to three decimals; NaN becomes "-"."""
    return "-" if math.isnan(value) else format(value, form)


def format_metrics(metrics: Mapping[str, float], protocol: str) -> str:
    """Formats the ten metrics as a table headed by the evaluation protocol; NaN becomes "-".

    Args:
        metrics: what `evaluate_keypoints` returns.
        protocol: the evaluation protocol: data, boxes, flip test, NMS, input size, number of images.

    Raises:
        ValueError: if the protocol is empty or a metric is missing.
    """
    if not protocol.strip():
        raise ValueError("metrics are printed with their protocol (boxes, flip, NMS, images): expected text, got none")
    if missing := [name for name in METRIC_NAMES if name not in metrics]:
        raise ValueError(f"metrics lack {missing}")
    values = [format_number(metrics[name]) for name in METRIC_NAMES]
    rows = ("".join(f"{cell:>7}" for cell in cells) for cells in (METRIC_NAMES, values))
    return "\n".join([protocol.strip(), *rows])


@dataclass(frozen=True)
class _EvalInputs:
    """Validated inputs of an evaluation."""

    gt: GroundTruth
    results: list[dict[str, Any]]
    images: list[Any]
    sigmas: NDArray[np.float64]


def _prepare_inputs(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images,
    sigmas: Sequence[float] | None,
) -> _EvalInputs:
    gt = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    selected = evaluated_images(gt, results, images)
    if sigmas is None:
        sigmas = Skeleton.from_coco_category(gt.category).sigmas
    sigma_array = np.asarray(sigmas, dtype=np.float64)
    if sigma_array.shape != (gt.num_keypoints,) or not (np.isfinite(sigma_array) & (sigma_array > 0)).all():
        raise ValueError(f"sigmas: expected {gt.num_keypoints} positive numbers, one per keypoint, got {list(sigmas)}")
    if {person["image_id"] for person in gt.labeled}.isdisjoint(selected):
        raise ValueError(
            f"{gt.source}: AP is undefined because no annotation of the {len(selected)} evaluated images has labeled "
            f"keypoints (num_keypoints > 0 and iscrowd 0)"
        )
    return _EvalInputs(gt, results, selected, sigma_array)


def _import_hotcoco() -> Any:
    try:
        import hotcoco
    except ImportError as error:
        raise ValueError(f"the backend 'hotcoco' is not installed ({error}): pip install 'posedy[fast]'") from error
    return hotcoco


def _evaluate_with_hotcoco(inputs: _EvalInputs) -> list[float]:
    """Computes the ten metrics with hotcoco, which has the interface of pycocotools."""
    hotcoco = _import_hotcoco()
    # hotcoco accepts integer ids only, so images are renumbered, and rejects some skeletons and names of a category
    number_of = {image_id: index for index, image_id in enumerate(inputs.gt.image_ids)}
    images = [{"id": index} for index in number_of.values()]

    def renumber(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**record, "image_id": number_of[record["image_id"]], "category_id": 1} for record in records]

    common = {"images": images, "categories": [{"id": 1, "name": "person"}]}
    coco_gt = hotcoco.COCO({**common, "annotations": renumber(inputs.gt.annotations)})
    copies = renumber(_copy_results(inputs.gt, inputs.results))
    # as with pycocotools, an empty list is loaded as a dataset
    coco_results = coco_gt.loadRes(copies) if copies else hotcoco.COCO({**common, "annotations": []})
    evaluation = hotcoco.COCOeval(coco_gt, coco_results, "keypoints")
    params = evaluation.params
    params.imgIds = [number_of[image_id] for image_id in inputs.images]
    params.kpt_oks_sigmas = inputs.sigmas.tolist()
    evaluation.params = params
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hotcoco warns about sigmas other than COCO's
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def _check_results_match(gt: GroundTruth, results: list[dict[str, Any]]) -> None:
    """Rejects results of images or categories that the annotation file does not contain."""
    check_results(results, gt.num_keypoints)
    unknown_images = {result["image_id"] for result in results}.difference(gt.image_ids)
    if unknown_images:
        differ_in_type = {str(image_id) for image_id in unknown_images} & {str(image_id) for image_id in gt.image_ids}
        hint = " Some ids are text in one file and numbers in the other: write both alike" if differ_in_type else ""
        raise ValueError(
            f"results contain {len(unknown_images)} image ids that are not in {gt.source}: "
            f"{_preview(sorted(unknown_images, key=str))}; do both belong to the same dataset?{hint}"
        )
    unknown_categories = {result["category_id"] for result in results} - gt.category_ids
    if unknown_categories or (results and not _select_category(gt, results)):
        ids = sorted(unknown_categories or {result["category_id"] for result in results}, key=str)
        raise ValueError(
            f"results: expected category_id {gt.category['id']} ({gt.category.get('name')!r}), the category with "
            f"keypoints in {gt.source}, got {_preview(ids)}"
        )


def _select_category(gt: GroundTruth, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Selects the results of the category with keypoints."""
    return [result for result in results if result["category_id"] == gt.category["id"]]


def _copy_results(gt: GroundTruth, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies the evaluated results for loadRes, which modifies them, with the keys it needs.

    loadRes infers from the first result which keys all others have (`bbox`, `segmentation`, `caption`), so `bbox` is
    kept only if every result has a valid one.
    """
    keys = ["image_id", "category_id", "keypoints", "score"]
    results = _select_category(gt, results)
    boxes, invalid = number_rows([result.get("bbox") for result in results], 4)
    if not invalid.any() and np.isfinite(boxes).all():
        keys.append("bbox")
    # numpy would keep integers above 64 bits as Python objects, which COCOeval cannot compute with
    keypoints, _ = number_rows([result["keypoints"] for result in results], 3 * gt.num_keypoints)
    return [
        {key: result[key] for key in keys} | {"keypoints": row, "score": float(result["score"])}
        for result, row in zip(results, keypoints.tolist(), strict=True)
    ]


def load_results(coco_gt: COCO, gt: GroundTruth, results: list[dict[str, Any]]) -> COCO:
    """Loads results into pycocotools, whose loadRes fails on an empty list."""
    return coco_gt.loadRes(results) if results else make_coco(gt, [])


def make_coco(gt: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    """Creates a pycocotools dataset of the ground truth's images with the given annotations."""
    coco = COCO()
    coco.dataset = _make_coco_dict(gt, annotations)
    coco.createIndex()
    return coco


def _make_coco_dict(gt: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Creates the content of a COCO file: the ground truth's images with the given annotations."""
    return {
        "images": [{"id": image_id} for image_id in gt.image_ids],
        "categories": [dict(gt.category)],
        "annotations": annotations,
    }


_SHOWN = 5  # values in a message


def _preview(values: Sequence[Any]) -> str:
    """Formats the first values of a sequence for error messages."""
    shown = ", ".join(repr(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}, ... ({len(values)} in all)"
