"""Evaluation benchmark: COCO metrics of a large test by each backend, and OKS-NMS compared with a plain loop."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_results import read_results, write_results
from posedy.evaluation.coco_eval import Backend, evaluate_keypoints
from posedy.oks import oks_nms
from posedy.poses import to_coco_results
from posedy.skeleton import COCO17
from posedy.system import peak_memory_mb
from tools.lab.benchmarks.ratios import ratio

Array = NDArray[np.float64]

_SIGMAS = np.asarray(COCO17.sigmas)
_POSES = 20  # poses per OKS-NMS call


def benchmark_evaluation(images: int, persons: int, results: int, rounds: int) -> dict[str, Any]:
    """Times reading and evaluating a generated test, and OKS-NMS of one image, interleaved.

    Args:
        images: number of images.
        persons: number of ground-truth persons on them.
        results: number of predicted poses on them; some have equal scores.
        rounds: number of measurements of each.

    Returns:
        The result in plain types.
    """
    rng = np.random.default_rng(0)
    annotations, predictions = _generate_test(rng, images, persons, results)
    backends = [name for name in get_args(Backend) if importlib.util.find_spec(name) is not None]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        write_results(path, predictions)
        reading = _seconds(lambda: read_results(path, 17))
    gt = GroundTruth.from_coco(annotations)
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    metrics: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name in backends:
            start = time.perf_counter()
            metrics[name] = evaluate_keypoints(gt, predictions, backend=name)
            seconds[name].append(time.perf_counter() - start)
    poses = _generate_poses(rng)
    nms_seconds: dict[str, list[float]] = {"loop": [], "posedy": []}
    for _ in range(max(rounds, 5)):
        nms_seconds["loop"].append(_seconds(lambda: plain_oks_nms(*poses), 5))
        nms_seconds["posedy"].append(_seconds(lambda: oks_nms(*poses), 50))
    return {
        "images": images,
        "persons": persons,
        "results": results,
        "rounds": rounds,
        "seconds_reading": reading,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "largest_difference": max(_largest_difference(metrics[backends[0]], metrics[name]) for name in backends),
        "peak_memory_mb": peak_memory_mb(torch.device("cpu")),
        "suppression_ms": {name: 1000 * float(np.median(values)) for name, values in nms_seconds.items()},
        "suppression_share_of_loop": ratio(nms_seconds["posedy"], nms_seconds["loop"]),
    }


def plain_oks_nms(keypoints: Array, scores: Array, areas: Array, sigmas: Array, threshold: float = 0.9) -> list[int]:
    """Suppresses poses by greedy OKS-NMS, in a plain loop: the reference implementation."""
    remaining = scores.argsort()[::-1].tolist()
    kept = []
    while remaining:
        best = remaining.pop(0)
        kept.append(best)
        survivors = []
        for other in remaining:
            distances = (keypoints[best] - keypoints[other]) ** 2
            area = (areas[best] + areas[other]) / 2 + np.spacing(1)
            exponents = distances.sum(axis=1) / (2 * sigmas) ** 2 / area / 2
            if np.exp(-exponents).sum() / len(exponents) <= threshold:
                survivors.append(other)
        remaining = survivors
    return kept


def format_evaluation_benchmark(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_evaluation`."""
    ratio_to_loop, nms_ms = report["suppression_share_of_loop"], report["suppression_ms"]
    return "\n".join(
        [
            f"{report['images']} images, {report['persons']} persons, {report['results']} poses, median of "
            f"{report['rounds']} interleaved rounds; reading the results file takes {report['seconds_reading']:.1f} s",
            *(f"{name:>12}: {seconds:6.2f} s" for name, seconds in report["seconds"].items()),
            f"largest difference of a metric between backends: {report['largest_difference']:.1e}",
            f"peak memory: {report['peak_memory_mb']:.0f} MB",
            f"OKS-NMS of {_POSES} poses: {nms_ms['posedy']:.2f} ms, plain loop {nms_ms['loop']:.2f} ms: "
            f"{ratio_to_loop['median']:.2f} of its time (quartiles {ratio_to_loop['quartile_low']:.2f} to "
            f"{ratio_to_loop['quartile_high']:.2f})",
        ]
    )


def _largest_difference(metrics: dict[str, float], others: dict[str, float]) -> float:
    """Returns the largest difference of two sets of metrics; infinite if a metric is NaN in only one of them."""
    pairs = np.array([(value, others[name]) for name, value in metrics.items()])
    differences = np.where(np.isnan(pairs).all(axis=1), 0, np.abs(pairs[:, 0] - pairs[:, 1]))
    return float(np.nan_to_num(differences, nan=np.inf).max())


def _seconds(call: Callable[[], object], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _generate_poses(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Generates poses of one image, some of them near-duplicates: keypoints, scores, areas and sigmas."""
    keypoints = rng.uniform(0, 300, (_POSES // 2, 17, 2))
    keypoints = np.concatenate([keypoints, keypoints + rng.normal(0, 3, keypoints.shape)])
    return keypoints, rng.random(_POSES), rng.uniform(5e3, 2e4, _POSES), _SIGMAS


def _generate_test(
    rng: np.random.Generator, images: int, persons: int, results: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Generates the content of a COCO file, and predictions: the persons with noise of several strengths."""
    image_index = rng.integers(images, size=persons)
    corners, sizes = rng.uniform(0, 400, (persons, 2)), rng.uniform(30, 240, (persons, 2))
    gt = corners[:, None] + rng.random((persons, 17, 2)) * sizes[:, None]
    visibility = np.where(rng.random((persons, 17)) < 0.6, 2, 0)
    visibility[:, 0] = 2
    annotations = [
        {
            "id": index + 1,
            "image_id": int(image_index[index]) + 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [*corners[index].tolist(), *sizes[index].tolist()],
            "area": float(sizes[index].prod() / 2),
            "keypoints": np.column_stack([gt[index], visibility[index]]).reshape(-1).tolist(),
            "num_keypoints": int((visibility[index] > 0).sum()),
        }
        for index in range(persons)
    ]
    person_index = rng.integers(persons, size=results)
    noise = rng.normal(0, 1, (results, 17, 2)) * rng.choice([2, 8, 60], (results, 1, 1))
    poses, keypoint_scores, scores = gt[person_index] + noise, rng.random((results, 17)), rng.random(results).round(3)
    predictions = []
    for image in np.unique(image_index[person_index]):
        chosen = image_index[person_index] == image
        predictions += to_coco_results(int(image) + 1, poses[chosen], keypoint_scores[chosen], scores[chosen])
    records = [{"id": index + 1, "width": 640, "height": 640, "file_name": f"{index}.jpg"} for index in range(images)]
    categories = [COCO17.to_coco_category()]
    return {"images": records, "annotations": annotations, "categories": categories}, predictions
