"""Benchmark of the person detector, relative to one pose and to torchvision's Faster R-CNN, on the CPU.

All calls are interleaved in one process for each number of threads, and ratios are computed within a round. Detectors
are timed with all of `detect`, from the image to its boxes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors import PersonDetector, TorchvisionDetector
from posedy.inference.estimator import PoseEstimator
from posedy.models.pretrained import DEFAULT
from posedy.prediction import load_model
from tools.lab.benchmarks.ratios import format_milliseconds, format_ratio, measure_interleaved, milliseconds, ratio
from tools.lab.benchmarks.subprocesses import run_in_subprocess

RUNTIMES = ("torch", "openvino")
SIZES = (416, 320)
IMAGE = Path(__file__).parents[3] / "data/coco_mini/val2017/000000001000.jpg"
"""An image of 640x480 with many persons, so that NMS has many boxes."""
IMAGE_SIZE = (640, 480)

FASTER_RCNN = "torchvision"
"""Torchvision's Faster R-CNN 320 with random weights: its second stage has 150 proposals, the most it accepts, while
trained weights may leave fewer; no boxes remain."""
POSE_MODEL = DEFAULT
"""The network of a pose."""
POSE = "pose"
"""One pose of `POSE_MODEL` without the flip test: `PoseEstimator` with an image and one box."""
POSE_NETWORK = "pose network"
"""Only the network of a pose, with its normalization: neither crop nor decoding."""

_RATIOS = {"to_pose": POSE, "to_pose_network": POSE_NETWORK}

Image = NDArray[np.uint8]
Call = Callable[[], object]


def benchmark_detector(
    runtimes: Sequence[str] = RUNTIMES,
    sizes: Sequence[int] = SIZES,
    threads: Sequence[int] = (1, 2),
    rounds: int = 15,
    image: Path = IMAGE,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times the person detector, a pose in the same runtime, and torchvision's Faster R-CNN in PyTorch.

    Args:
        runtimes: a subset of `RUNTIMES`.
        sizes: sizes of the person detector, see `PersonDetector`.
        threads: numbers of threads.
        rounds: number of measurements of each.
        image: an image file, which is resized to 640x480.
        log: receives progress messages.

    Returns:
        The result in plain types: one row per call, runtime and number of threads; rows of the person detector have
        the ratios of its time to those of the others.

    Raises:
        OSError: if the image cannot be read.
        ValueError: if a runtime is unknown.
        RuntimeError: if a process fails, such as for a runtime that is not installed.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise ValueError(f"expected runtimes to be of {', '.join(RUNTIMES)}, got {unknown[0]!r}")
    read_image(image)
    rows = []
    for count in threads:
        log(f"timing {', '.join(runtimes)} on {count} thread(s)")
        task = {
            "runtimes": list(runtimes),
            "sizes": list(sizes),
            "threads": count,
            "rounds": rounds,
            "image": str(image.resolve()),
        }
        rows += run_in_subprocess(time_calls, task)
    return {"pose": POSE_MODEL, "image": f"{IMAGE_SIZE[0]}x{IMAGE_SIZE[1]}", "rounds": rounds, "rows": rows}


def time_calls(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times all calls of a task in this process and returns their rows."""
    image = cv2.resize(rgb_to_bgr(read_image(task["image"])), IMAGE_SIZE).astype(np.uint8, copy=False)
    calls = {("torch", FASTER_RCNN): _faster_rcnn_call(image)}
    for runtime in task["runtimes"]:
        calls |= {(runtime, name): call for name, call in _calls(runtime, task["sizes"], image).items()}
    by_name = measure_interleaved({" ".join(key): call for key, call in calls.items()}, task["rounds"])
    seconds = {key: by_name[" ".join(key)] for key in calls}
    rows = []
    for (runtime, name), times in seconds.items():
        row = {"runtime": runtime, "threads": task["threads"], "call": name, "milliseconds": milliseconds(times)}
        if name.startswith("detector"):
            row |= {key: ratio(times, seconds[runtime, other]) for key, other in _RATIOS.items()}
            row["to_faster_rcnn"] = ratio(times, seconds["torch", FASTER_RCNN])
        rows.append(row)
    return rows


def _calls(runtime: Any, sizes: Sequence[int], image: Image) -> dict[str, Call]:
    """Returns the calls in one runtime: the person detector of each size, a pose, and the network of a pose."""
    calls: dict[str, Call] = {}
    for size in sizes:
        detector = PersonDetector(size, device="cpu", runtime=runtime)
        calls[f"detector {size}"] = lambda detector=detector: detector.detect(image)  # type: ignore[misc]
    estimator = PoseEstimator(POSE_MODEL, "cpu", detector=None, flip=False, batch_size=1, runtime=runtime)
    box = np.array([[0, 0, *IMAGE_SIZE]], dtype=np.float32)
    calls[POSE] = lambda: estimator(image, box)
    model = load_model(POSE_MODEL, "cpu", runtime)
    width, height = model.input_size
    crop = cv2.resize(image, (width, height))[None].astype(np.uint8, copy=False)
    calls[POSE_NETWORK] = lambda: model(crop)
    return calls


@torch.no_grad()
def _faster_rcnn_call(image: Image) -> Call:
    """Returns a call of torchvision's detector with random weights.

    The statistics of its batch norms are those of the image, as otherwise activations shrink to nothing from layer to
    layer.
    """
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn  # slow to import

    torch.manual_seed(0)
    net = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    inputs, _ = net.eval().transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    net.backbone.train()(inputs.tensors)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "random.pth"
        torch.save(net.state_dict(), weights)
        detector = TorchvisionDetector(weights, "cpu")
    return lambda: detector.detect(image)


def format_detector(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table: milliseconds, and the detector's time relative to the others."""
    lines = [
        "| threads | runtime | call | ms (quartiles) | relative to a pose | relative to its network | "
        "relative to Faster R-CNN |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        ratios = " | ".join(format_ratio(row.get(key)) for key in (*_RATIOS, "to_faster_rcnn"))
        lines.append(
            f"| {row['threads']} | {row['runtime']} | {row['call']} | {format_milliseconds(row['milliseconds'])} | "
            f"{ratios} |"
        )
    return "\n".join(lines)
