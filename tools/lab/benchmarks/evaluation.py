"""How long COCO's numbers take on a large test, by each backend; and suppression beside a plain loop."""

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
from posedy.data.coco_results import read_results, to_coco_results, write_results
from posedy.evaluation.coco_eval import Backend, evaluate_keypoints
from posedy.oks import oks_nms
from posedy.skeleton import COCO17
from posedy.system import peak_memory_mb
from tools.lab.benchmarks.ratios import ratio

Array = NDArray[np.float64]

_SIGMAS = np.asarray(COCO17.sigmas)
_POSES = 20  # suppressed together


def benchmark_evaluation(images: int, persons: int, results: int, rounds: int) -> dict[str, Any]:
    """Times reading and evaluating a made test, and suppression of an image's poses, in turns.

    Args:
        images: of the made set.
        persons: on them.
        results: poses, spread over the images; some scores are equal.
        rounds: how often each is timed.

    Returns:
        The numbers, in plain types.
    """
    rng = np.random.default_rng(0)
    annotations, found = _made_test(rng, images, persons, results)
    backends = [name for name in get_args(Backend) if importlib.util.find_spec(name) is not None]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        write_results(path, found)
        reading = _seconds(lambda: read_results(path, 17))
    truth = GroundTruth.from_coco(annotations)
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    numbers: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name in backends:
            began = time.perf_counter()
            numbers[name] = evaluate_keypoints(truth, found, backend=name)
            seconds[name].append(time.perf_counter() - began)
    crowd = _crowd(rng)
    loops: dict[str, list[float]] = {"loop": [], "posedy": []}
    for _ in range(max(rounds, 5)):
        loops["loop"].append(_seconds(lambda: plain_oks_nms(*crowd), 5))
        loops["posedy"].append(_seconds(lambda: oks_nms(*crowd), 50))
    return {
        "images": images,
        "persons": persons,
        "results": results,
        "rounds": rounds,
        "seconds_reading": reading,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "largest_difference": max(_difference(numbers[backends[0]], numbers[name]) for name in backends),
        "peak_memory_mb": peak_memory_mb(torch.device("cpu")),
        "suppression_ms": {name: 1000 * float(np.median(values)) for name, values in loops.items()},
        "suppression_share_of_loop": ratio(loops["posedy"], loops["loop"]),
    }


def plain_oks_nms(keypoints: Array, scores: Array, areas: Array, sigmas: Array, threshold: float = 0.9) -> list[int]:
    """Greedy suppression as it is usually written: one pose after the other, each with those that are left."""
    left = scores.argsort()[::-1].tolist()
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        survivors = []
        for other in left:
            distances = (keypoints[best] - keypoints[other]) ** 2
            area = (areas[best] + areas[other]) / 2 + np.spacing(1)
            exponents = distances.sum(axis=1) / (2 * sigmas) ** 2 / area / 2
            if np.exp(-exponents).sum() / len(exponents) <= threshold:
                survivors.append(other)
        left = survivors
    return kept


def format_evaluation_benchmark(numbers: dict[str, Any]) -> str:
    """The numbers as lines of text."""
    share, suppression = numbers["suppression_share_of_loop"], numbers["suppression_ms"]
    return "\n".join(
        [
            f"{numbers['images']} images, {numbers['persons']} persons, {numbers['results']} poses, median of "
            f"{numbers['rounds']} rounds in turns; reading the results file takes {numbers['seconds_reading']:.1f} s",
            *(f"{name:>12}: {seconds:6.2f} s" for name, seconds in numbers["seconds"].items()),
            f"largest difference of a number between backends: {numbers['largest_difference']:.1e}",
            f"most memory in use: {numbers['peak_memory_mb']:.0f} MB",
            f"OKS-NMS of {_POSES} poses: {suppression['posedy']:.2f} ms, a plain loop {suppression['loop']:.2f} ms: "
            f"{share['median']:.2f} of it (quartiles {share['quartile_low']:.2f} to {share['quartile_high']:.2f})",
        ]
    )


def _difference(numbers: dict[str, float], others: dict[str, float]) -> float:
    """The largest; infinite where only one of two is undefined."""
    pairs = np.array([(value, others[name]) for name, value in numbers.items()])
    apart = np.where(np.isnan(pairs).all(axis=1), 0, np.abs(pairs[:, 0] - pairs[:, 1]))
    return float(np.nan_to_num(apart, nan=np.inf).max())


def _seconds(work: Callable[[], object], times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def _crowd(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Poses of one image: keypoints, scores, areas and sigmas, some nearly equal."""
    keypoints = rng.uniform(0, 300, (_POSES // 2, 17, 2))
    keypoints = np.concatenate([keypoints, keypoints + rng.normal(0, 3, keypoints.shape)])
    return keypoints, rng.random(_POSES), rng.uniform(5e3, 2e4, _POSES), _SIGMAS


def _made_test(
    rng: np.random.Generator, images: int, persons: int, results: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO file's content of persons, and poses: those persons moved, and others."""
    of_person = rng.integers(images, size=persons)
    corners, sizes = rng.uniform(0, 400, (persons, 2)), rng.uniform(30, 240, (persons, 2))
    truth = corners[:, None] + rng.random((persons, 17, 2)) * sizes[:, None]
    visibility = np.where(rng.random((persons, 17)) < 0.6, 2, 0)
    visibility[:, 0] = 2
    annotations = [
        {
            "id": index + 1,
            "image_id": int(of_person[index]) + 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [*corners[index].tolist(), *sizes[index].tolist()],
            "area": float(sizes[index].prod() / 2),
            "keypoints": np.column_stack([truth[index], visibility[index]]).reshape(-1).tolist(),
            "num_keypoints": int((visibility[index] > 0).sum()),
        }
        for index in range(persons)
    ]
    around = rng.integers(persons, size=results)
    noise = rng.normal(0, 1, (results, 17, 2)) * rng.choice([2, 8, 60], (results, 1, 1))
    poses, keypoint_scores, scores = truth[around] + noise, rng.random((results, 17)), rng.random(results).round(3)
    found = []
    for image in np.unique(of_person[around]):
        chosen = of_person[around] == image
        found += to_coco_results(int(image) + 1, poses[chosen], keypoint_scores[chosen], scores[chosen])
    records = [{"id": index + 1, "width": 640, "height": 640, "file_name": f"{index}.jpg"} for index in range(images)]
    categories = [COCO17.to_coco_category()]
    return {"images": records, "annotations": annotations, "categories": categories}, found
