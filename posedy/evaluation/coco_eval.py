"""The ten numbers of the COCO keypoint evaluation, computed by pycocotools or, many times as fast, by hotcoco."""

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
    """AP and AR of keypoint results against a COCO annotation file, as COCOeval computes them.

    Nothing is rescored or suppressed. COCOeval counts the 20 best scored results of an image, and takes the size of
    a result that matches nobody from its `bbox` if every result has one, else from the extent of its keypoints.
    Results of other categories of the file are not counted.

    Args:
        annotations: a COCO annotation file, its content, or what `GroundTruth.from_coco` made of it.
        results: COCO keypoint results; extra keys are allowed.
        images: "all" images of the annotation file, "detected" for those that have results only, or image ids.
        sigmas: (K,) of OKS; by default those of the file's category (COCO's own for COCO's keypoints).
        backend: what computes them; "hotcoco" (`pip install hotcoco`) gives the same numbers sooner.

    Returns:
        `METRIC_NAMES` with values within [0, 1]; NaN for a size class (m: 32^2 to 96^2 square pixels, l: above)
        that has no truth.

    Raises:
        OSError: if the annotation file cannot be read.
        ValueError: if truth or results are malformed or do not belong together, or if no counted image has a
            labeled person, where AP is undefined; or if the backend is not installed.
    """
    if backend == "hotcoco":
        stats = _stats_of_hotcoco(_checked(annotations, results, images, sigmas))
    else:
        evaluation = match_results(annotations, results, images, sigmas)
        with redirect_stdout(io.StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        stats = evaluation.stats.tolist()
    # -1 stands for what is undefined.
    values = [float(value) if value >= 0 else math.nan for value in stats]
    return dict(zip(METRIC_NAMES, values, strict=True))


def match_results(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
    sigmas: Sequence[float] | None = None,
    oks_thresholds: Sequence[float] | None = None,
) -> COCOeval:
    """COCOeval after `evaluate`, with the results of each image matched to its truth, and not yet accumulated.

    Arguments and errors are those of `evaluate_keypoints`; `oks_thresholds` are COCO's 0.5, 0.55 .. 0.95 unless given.
    """
    task = _checked(annotations, results, images, sigmas)
    with redirect_stdout(io.StringIO()):
        coco_truth = _indexed(task.truth, [dict(annotation) for annotation in task.truth.annotations])
        coco_results = _load_results(coco_truth, task.truth, _copies_for_coco(task.truth, results))
        evaluation = COCOeval(coco_truth, coco_results, "keypoints")
        evaluation.params.imgIds = task.images
        evaluation.params.kpt_oks_sigmas = task.sigmas
        if oks_thresholds is not None:
            evaluation.params.iouThrs = np.asarray(oks_thresholds, dtype=np.float64)
        evaluation.evaluate()
    return evaluation


def evaluated_images(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
) -> list[int]:
    """The ids of the images that `evaluate_keypoints` counts, sorted.

    Raises:
        OSError: if the annotation file cannot be read.
        ValueError: if truth or results are malformed or do not belong together, or if no image is left.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    _check_belongs_together(truth, results)
    if isinstance(images, str):
        if images == "all":
            return list(truth.image_ids)
        if images != "detected":
            raise ValueError(f"images must be 'all', 'detected' or a sequence of image ids, got {images!r}")
        counted = {result["image_id"] for result in _of_category(truth, results)}
        if not counted:
            raise ValueError("images='detected' counts only images that have results, and there are none: use 'all'")
    else:
        counted = set(images)
        if not counted:
            raise ValueError("no image ids were given to evaluate on")
        if unknown := sorted(counted.difference(truth.image_ids), key=str):
            raise ValueError(f"{truth.source}: has no images {_first(unknown)}, which were asked for")
    return [image_id for image_id in truth.image_ids if image_id in counted]


def metrics_to_json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for a JSON file: None (null) in place of NaN, which JSON does not have."""
    return {name: None if math.isnan(value) else float(value) for name, value in metrics.items()}


def format_number(value: float, form: str = ".3f") -> str:
    """A number to three decimals, or in another form; "-" for an undefined one."""
    return "-" if math.isnan(value) else format(value, form)


def format_metrics(metrics: Mapping[str, float], protocol: str) -> str:
    """A table of the ten numbers to three decimals under a line that names their protocol; "-" for undefined ones.

    Args:
        metrics: what `evaluate_keypoints` returns.
        protocol: how the numbers were measured: data, boxes, flip, NMS, input size, number of images.

    Raises:
        ValueError: if the protocol is empty or a number is missing.
    """
    if not protocol.strip():
        raise ValueError("AP is printed with its protocol (boxes, flip, NMS, images), got an empty one")
    if missing := [name for name in METRIC_NAMES if name not in metrics]:
        raise ValueError(f"metrics lack {missing}")
    values = [format_number(metrics[name]) for name in METRIC_NAMES]
    rows = ("".join(f"{cell:>7}" for cell in cells) for cells in (METRIC_NAMES, values))
    return "\n".join([protocol.strip(), *rows])


@dataclass(frozen=True)
class _Task:
    """What is measured on what, checked."""

    truth: GroundTruth
    results: list[dict[str, Any]]
    images: list[Any]
    sigmas: NDArray[np.float64]


def _checked(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images,
    sigmas: Sequence[float] | None,
) -> _Task:
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth.from_coco(annotations)
    counted = evaluated_images(truth, results, images)
    if sigmas is None:
        sigmas = Skeleton.from_coco_category(truth.category).sigmas
    sigma_array = np.asarray(sigmas, dtype=np.float64)
    if sigma_array.shape != (truth.num_keypoints,) or not (np.isfinite(sigma_array) & (sigma_array > 0)).all():
        raise ValueError(f"{truth.num_keypoints} keypoints need as many positive sigmas, got {list(sigmas)}")
    if {person["image_id"] for person in truth.labeled}.isdisjoint(counted):
        raise ValueError(
            f"{truth.source}: AP is undefined because no annotation of the {len(counted)} counted images has labeled "
            f"keypoints (num_keypoints > 0 and iscrowd 0)"
        )
    return _Task(truth, results, counted, sigma_array)


def _stats_of_hotcoco(task: _Task) -> list[float]:
    """The ten numbers by hotcoco, whose names are pycocotools'."""
    try:
        import hotcoco
    except ImportError as error:
        raise ValueError(f'the backend "hotcoco" is not installed ({error}): pip install hotcoco') from error
    # it takes no ids but counts
    number_of = {image_id: index for index, image_id in enumerate(task.truth.image_ids)}
    images = [{"id": index} for index in number_of.values()]

    def numbered(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**record, "image_id": number_of[record["image_id"]]} for record in records]

    truth = hotcoco.COCO({**_content(task.truth, numbered(task.truth.annotations)), "images": images})
    copies = numbered(_copies_for_coco(task.truth, task.results))
    # as in pycocotools, an empty list is loaded as a data set
    found = truth.loadRes(copies) if copies else hotcoco.COCO({**_content(task.truth, []), "images": images})
    evaluation = hotcoco.COCOeval(truth, found, "keypoints")
    params = evaluation.params
    params.imgIds = [number_of[image_id] for image_id in task.images]
    params.kpt_oks_sigmas = task.sigmas.tolist()
    evaluation.params = params
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of sigmas that are not COCO's
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def _check_belongs_together(truth: GroundTruth, results: list[dict[str, Any]]) -> None:
    """Refuses results of images or categories that the annotation file does not have."""
    check_results(results, truth.num_keypoints)
    outside = {result["image_id"] for result in results}.difference(truth.image_ids)
    if outside:
        raise ValueError(
            f"results are for {len(outside)} image ids that {truth.source} does not have: "
            f"{_first(sorted(outside, key=str))}; do both belong to the same data set?"
        )
    expected = truth.category["id"]
    foreign = {result["category_id"] for result in results} - truth.category_ids
    if foreign or (results and not _of_category(truth, results)):
        found = sorted(foreign or {result["category_id"] for result in results}, key=str)
        raise ValueError(
            f"results have category_id {_first(found)}, but the category with keypoints in {truth.source} is "
            f"{expected} ({truth.category.get('name')!r})"
        )


def _of_category(truth: GroundTruth, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of the category that has keypoints."""
    return [result for result in results if result["category_id"] == truth.category["id"]]


def _copies_for_coco(truth: GroundTruth, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the results that loadRes may change, with only the keys that it should see.

    loadRes decides by the first result what the others must have (`bbox`, `segmentation`, `caption`), so `bbox` stays
    where all have a usable one, and nothing else does.
    """
    keys = ["image_id", "category_id", "keypoints", "score"]
    results = _of_category(truth, results)
    boxes, invalid = number_rows([result.get("bbox") for result in results], 4)
    if not invalid.any() and np.isfinite(boxes).all():
        keys.append("bbox")
    return [{key: result[key] for key in keys} for result in results]


def _load_results(coco_truth: COCO, truth: GroundTruth, results: list[dict[str, Any]]) -> COCO:
    """The results as pycocotools holds them; its own loadRes fails on an empty list."""
    return coco_truth.loadRes(results) if results else _indexed(truth, [])


def _indexed(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    """A pycocotools data set of the truth's images with these annotations."""
    coco = COCO()
    coco.dataset = _content(truth, annotations)
    coco.createIndex()
    return coco


def _content(truth: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """A COCO file's content: the truth's images with these annotations."""
    return {
        "images": [{"id": image_id} for image_id in truth.image_ids],
        "categories": [dict(truth.category)],
        "annotations": annotations,
    }


def _first(values: Sequence[Any], limit: int = 5) -> str:
    """The first few of many values, for errors."""
    shown = ", ".join(repr(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown}, ... ({len(values)} in all)"
