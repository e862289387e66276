"""Compares the keypoints of exported files in ONNX Runtime, OpenVINO, OpenCV DNN and ncnn with those of PyTorch.

The crops are those of persons of data/coco_mini, around their ground-truth boxes. Differences are distances in pixels
of the crop. ncnn needs an environment of its own:

python -m venv nn && nn/bin/pip install ncnn pnnx numpy
python -m tools.lab.runtime_parity --ncnn-python nn/bin/python
"""

import argparse
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from posedy.cli.options import add_json, write_json
from posedy.data.coco import read_coco
from posedy.data.datasets import TopDownEvalDataset
from posedy.export.int8_search import crop_inputs
from posedy.export.onnx import export_onnx
from posedy.export.onnx_detector import export_detector_onnx
from posedy.export.runtimes import make_runner
from posedy.models.pose_net import PoseNet, predict_outputs
from posedy.models.pretrained import DEFAULT, load_checkpoint
from tools.lab.entry import run_and_exit
from tools.lab.runtime_parity import ncnn_script

Array = NDArray[Any]

FILES: dict[str, dict[str, Any]] = {
    "batch free": {"batch": "free"},
    "batch 1": {"batch": 1},
    "batch 1, float16 weights": {"batch": 1, "half": True},
    "batch 1, with decoding": {"batch": 1, "with_decoding": True, "flip": False},
}
"""The exported files with their options of `export_onnx`."""
DETECTOR = "person detector"
RUNTIMES = ("onnxruntime", "openvino", "opencv", "ncnn")
_COCO_MINI = Path(__file__).parents[3] / "data/coco_mini"
_PADDING = 1.25


@dataclass(frozen=True)
class Parity:
    """The result of one file in one runtime.

    Attributes:
        runtime: one of `RUNTIMES`.
        file: one of `FILES`, or `DETECTOR`.
        largest: the largest distance from PyTorch's keypoints in pixels; None if the runtime cannot run the file.
        mean: the mean distance.
        error: the error message if the runtime cannot run the file.
    """

    runtime: str
    file: str
    largest: float | None = None
    mean: float | None = None
    error: str | None = None


def main(argv: list[str] | None = None) -> None:
    """Runs the comparison and prints a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.runtime_parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", default=DEFAULT, metavar="MODEL", help="a file or a preset (default: balanced)")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="number of crops, up to 160 (default: 64)")
    parser.add_argument("--ncnn-python", type=Path, metavar="PATH", help="the Python of an environment with ncnn")
    add_json(parser)
    arguments = parser.parse_args(argv)
    if arguments.count < 2:
        raise ValueError("--count must be at least 2")
    results = compare_runtimes(load_checkpoint(arguments.checkpoint), arguments.count, arguments.ncnn_python)
    print(format_parity(results))
    write_json(arguments.json, [asdict(result) for result in results])


def compare_runtimes(net: PoseNet, count: int, ncnn_python: Path | None = None) -> list[Parity]:
    """Exports a network and compares its keypoints in all runtimes with PyTorch's.

    Args:
        net: a network with heatmaps for crops of three channels.
        count: number of crops.
        ncnn_python: the Python of an environment with ncnn; None leaves out ncnn.
    """
    crops = person_crops(count, net.input_size)
    with torch.inference_mode():
        expected = net.codec.decode(predict_outputs(net, torch.from_numpy(crops), net.codec, None))[0].numpy()
    results = []
    with TemporaryDirectory() as folder:
        for index, (name, options) in enumerate(FILES.items()):
            path = Path(folder) / f"{index}.onnx"
            inputs = crop_inputs(crops, export_onnx(net, path, **options).info)
            runners: dict[str, Callable[[], Array]] = {
                "onnxruntime": lambda: _run(path, inputs, options["batch"], "onnxruntime"),  # noqa: B023 (called below)
                "openvino": lambda: _run(path, inputs, options["batch"], "openvino"),  # noqa: B023
                "opencv": lambda: run_opencv(path, inputs, options["batch"]),  # noqa: B023
            }
            if ncnn_python is not None:
                runners["ncnn"] = lambda: _run_ncnn(ncnn_python, path, inputs)  # noqa: B023
            for runtime, run in runners.items():
                results.append(_compare(runtime, name, run, net, expected))
        path = Path(folder) / "detector.onnx"
        export_detector_onnx(path)
        image = np.zeros((1, 416, 416, 3), np.uint8)
        results.append(_compare("opencv", DETECTOR, lambda: run_opencv(path, image, 1), net, expected))
    return results


def person_crops(count: int, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns crops (N, H, W, 3) RGB of persons of data/coco_mini, evenly spaced in both of its sets."""
    crops = []
    for split, number in (("train", count // 2), ("val", count - count // 2)):
        persons = read_coco(_COCO_MINI / f"annotations/person_keypoints_{split}2017.json", _COCO_MINI / f"{split}2017")
        if number > len(persons):
            raise ValueError(f"expected at most {2 * len(persons)} crops, got {count}")
        dataset = TopDownEvalDataset(persons, persons.image_index, persons.boxes, input_size, _PADDING)
        chosen = np.linspace(0, len(persons) - 1, number).round().astype(int)
        crops += [dataset[int(index)]["crop"] for index in chosen]
    return np.stack(crops)


def run_opencv(path: Path, inputs: Array, batch: object) -> Array:
    """Runs a file in OpenCV DNN and returns its first output."""
    net = cv2.dnn.readNetFromONNX(str(path))
    outputs = []
    for part in [inputs] if batch == "free" else np.split(inputs, len(inputs)):
        net.setInput(part)
        outputs.append(net.forward(net.getUnconnectedOutLayersNames()[0]))
    return np.concatenate(outputs)


def _run(path: Path, inputs: Array, batch: Any, runtime: Any) -> Array:
    return make_runner(path.read_bytes(), batch, runtime)(inputs)[0]


def _run_ncnn(python: Path, path: Path, inputs: Array) -> Array:
    files = path.with_suffix(".inputs.npy"), path.with_suffix(".outputs.npy")
    np.save(files[0], inputs)
    command = [str(python), str(ncnn_script.__file__), str(path), *(str(file) for file in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return np.load(files[1])


def _compare(runtime: str, file: str, run: Callable[[], Array], net: PoseNet, expected: Array) -> Parity:
    try:
        output = run()
    except (ValueError, cv2.error) as error:
        return Parity(runtime, file, error=" ".join(str(error).split()))
    keypoints = output
    if output.shape != expected.shape:
        (name,) = net.codec.output_names
        keypoints = net.codec.decode({name: torch.from_numpy(output)})[0].numpy()
    distances = np.linalg.norm(keypoints - expected, axis=-1)
    return Parity(runtime, file, float(distances.max()), float(distances.mean()))


def format_parity(results: list[Parity]) -> str:
    """Formats the results as a Markdown table."""
    lines = ["| runtime | file | largest difference, px | mean difference, px |", "|---|---|---|---|"]
    for result in results:
        numbers = f"{result.largest:.4f} | {result.mean:.5f}" if result.error is None else f"fails: {result.error} |"
        lines.append(f"| {result.runtime} | {result.file} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_and_exit(main, "runtime_parity")
