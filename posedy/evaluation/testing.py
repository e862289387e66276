"""The test of a checkpoint, from files to files."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2

from posedy.config import Config
from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.coco_results import write_results
from posedy.data.detections import Detections, read_detections
from posedy.data.image_check import ImageCheck
from posedy.evaluation.coco_eval import format_metrics, metrics_to_json
from posedy.evaluation.evaluator import EvalResult, evaluate_model, load_tested_model
from posedy.evaluation.gallery import best_median_worst
from posedy.evaluation.matching import match_persons
from posedy.files import write_bytes_atomically, write_json_atomically
from posedy.prediction import Model
from posedy.system import default_workers


def measure_checkpoint(config: Config, checkpoint: Path, out: Path, device: str = "auto") -> dict[str, Any]:
    """Measures a checkpoint on a configuration's val set and writes what it found.

    The folder `out` gets metrics.json, results.json and persons.jpg, the best, median and worst persons.

    Args:
        config: the val set, the boxes (`data.boxes`, None for the ground truth's) and the protocol.
        checkpoint: a .pt, .safetensors or exported .onnx file of the configured network.
        out: the folder for the results.
        device: name of a device, or "auto".

    Returns:
        The content of metrics.json: the ten numbers, the protocol, the model and its file.

    Raises:
        OSError, ValueError: if a file is missing or does not fit the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = load_tested_model(config, checkpoint, device)
    persons, boxes, truth = read_val_set(config, model, checkpoint)
    outcome = run_test(model, persons, boxes, config, truth)
    print(format_metrics(outcome.metrics, str(outcome.protocol)))
    numbers = metrics_to_json(outcome.metrics) | {
        "protocol": dataclasses.asdict(outcome.protocol),
        "model": model.name,
        "checkpoint": str(checkpoint),
        "data": {
            "annotations": str(persons.annotations),
            "images": str(persons.image_dir),
            "category": dict(truth.category),
        },
    }
    write_results(out / "results.json", outcome.results)
    write_json_atomically(out / "metrics.json", numbers, indent=2)
    matched = match_persons(truth, outcome.results, persons.skeleton.sigmas)
    index_of = {image_id: index for index, image_id in enumerate(persons.image_ids.tolist())}
    tiles = best_median_worst(matched, lambda image_id: persons.image_path(index_of[image_id]))
    _, picture = cv2.imencode(".jpg", cv2.cvtColor(tiles, cv2.COLOR_RGB2BGR))
    write_bytes_atomically(out / "persons.jpg", picture.tobytes())
    print(f"wrote {out / 'metrics.json'}, {out / 'results.json'} and {out / 'persons.jpg'}")
    return numbers


def read_val_set(config: Config, model: Model, checkpoint: Path) -> tuple[CocoPersons, Detections | None, GroundTruth]:
    """Reads the configured val set and boxes (None for the ground truth's), says what they are, checks that they fit.

    Args:
        config: names the set, the boxes and the size of crops.
        model: must know the set's keypoints.
        checkpoint: the model's file, for errors.

    Returns:
        The persons, the boxes, and the ground truth for COCOeval, of one reading of the annotation file.

    Raises:
        OSError, ValueError: if a file is missing, damaged, or has other keypoints than the network.
    """
    val = config.data.val_set
    image_check: ImageCheck = "once" if config.data.check_images else "never"
    file = CocoFile.read(val.annotations)
    persons = read_coco(file, val.images, config.data.skeleton, image_check)
    print(persons.summary())
    if model.num_keypoints != persons.skeleton.num_keypoints:
        raise ValueError(
            f"{checkpoint} predicts {model.num_keypoints} keypoints, {val.annotations} has "
            f"{persons.skeleton.num_keypoints}"
        )
    if model.skeleton is not None and model.skeleton.keypoints != persons.skeleton.keypoints:
        raise ValueError(
            f"{checkpoint} knows the keypoints {list(model.skeleton.keypoints)}, {val.annotations} has "
            f"{list(persons.skeleton.keypoints)}"
        )
    if model.input_size != config.model.input_size:
        print(
            f"the network was trained on crops of {model.input_size}, the configuration's are {config.model.input_size}"
        )
    truth = GroundTruth.from_coco(file, config.data.skeleton)
    if config.data.boxes is None:
        return persons, None, truth
    boxes = read_detections(config.data.boxes, persons, config.eval.box_threshold)
    print(boxes.summary())
    return persons, boxes, truth


def run_test(
    model: Model,
    persons: CocoPersons,
    boxes: Detections | None,
    config: Config,
    truth: GroundTruth | None = None,
) -> EvalResult:
    """Evaluates a model as a configuration says, with a progress bar.

    Args:
        model: the model, for crops of any size that it takes.
        persons: what `read_val_set` read.
        boxes: the same; None is the ground truth's.
        config: the size of crops and the protocol.
        truth: the annotation file for COCOeval, if it has been read already.

    Raises:
        ValueError: if the model does not take crops of the configured size.
    """
    return evaluate_model(
        model.with_input_size(config.model.input_size),
        persons,
        boxes,
        config.eval,
        workers=config.train.workers if config.train.workers is not None else default_workers(),
        truth=truth,
        progress=True,
    )
