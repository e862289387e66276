"""Evaluation of a checkpoint, from input files to result files."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from posedy.config import Config
from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.coco_results import write_results
from posedy.data.detections import Detections, read_detections
from posedy.data.image_check import ImageCheck
from posedy.evaluation.coco_eval import check_evaluation, format_metrics, metrics_to_json
from posedy.evaluation.evaluator import EvalResult, evaluate_model
from posedy.evaluation.gallery import draw_gallery
from posedy.evaluation.matching import match_persons
from posedy.evaluation.plausibility import warn_of_doubts
from posedy.evaluation.processes import is_main
from posedy.evaluation.tested_network import load_tested_network, with_network
from posedy.files import check_writable, write_bytes_atomically, write_json_atomically
from posedy.images import encode_jpeg, rgb_to_bgr
from posedy.prediction import Model
from posedy.system import default_num_workers


def evaluate_checkpoint(
    config: Config,
    checkpoint: Path,
    out: Path,
    device: str = "auto",
    accelerator: Accelerator | None = None,
    explicit: Collection[str] = (),
) -> dict[str, Any]:
    """Evaluates a checkpoint on the configured validation set and writes the result.

    Writes metrics.json, results.json and persons.jpg (the best, median and worst persons) to `out`. Of several
    processes, each predicts a share of the persons, and the main one writes.

    Args:
        config: validation set, boxes (`data.boxes`, None for the ground truth's) and evaluation protocol.
        checkpoint: a .pt, .safetensors or exported .onnx file, which records the network.
        out: output folder.
        device: name of a device, or "auto".
        accelerator: the processes, see `join_processes`; None is this one alone.
        explicit: keys of the `model` section that were set for this test, see `with_network`.

    Returns:
        The content of metrics.json: the ten metrics, the protocol, the model, its file and the data.

    Raises:
        OSError, ValueError: if a file is missing, or files do not match each other.
    """
    check_writable(out / "metrics.json")
    model = load_tested_network(checkpoint, device)
    config, unused = with_network(config, model, checkpoint, explicit)
    if unused:
        print(unused)
    persons, boxes, gt = read_val_set(config, model, checkpoint)
    check_evaluation(gt, config.eval.backend)  # the prediction takes long
    result = run_evaluation(model, persons, boxes, config, gt, accelerator)
    print(format_metrics(result.metrics, str(result.protocol)))
    if boxes is not None:
        warn_of_doubts(gt, result.results, result.metrics, str(boxes.path))
    record = metrics_to_json(result.metrics) | {
        "protocol": dataclasses.asdict(result.protocol),
        "model": model.name,
        "checkpoint": str(checkpoint),
        "data": {
            "annotations": str(persons.annotations),
            "images": str(persons.image_dir),
            "category": dict(gt.category),
        },
    }
    if not is_main(accelerator):
        return record
    matched = match_persons(gt, result.results, persons.skeleton.sigmas)
    index_of = {image_id: index for index, image_id in enumerate(persons.image_ids.tolist())}
    gallery = draw_gallery(
        matched, lambda image_id: persons.image_path(index_of[image_id]), on_missing=lambda _, error: print(error)
    )
    jpeg = encode_jpeg(rgb_to_bgr(gallery))
    # all computed before the first is written: an error leaves the files of an earlier run unchanged
    write_results(out / "results.json", result.results)
    write_json_atomically(out / "metrics.json", record, indent=2)
    write_bytes_atomically(out / "persons.jpg", jpeg)
    print(f"wrote {out / 'metrics.json'}, {out / 'results.json'} and {out / 'persons.jpg'}")
    return record


def read_val_set(config: Config, model: Model, checkpoint: Path) -> tuple[CocoPersons, Detections | None, GroundTruth]:
    """Reads and summarizes the configured validation set and boxes, and checks that they match the model.

    Args:
        config: names of the validation set and the boxes, and the input size.
        model: the model; its keypoints must be those of the dataset.
        checkpoint: the model's file, for error messages.

    Returns:
        The persons, the boxes (None for the ground truth's), and the ground truth for COCOeval.

    Raises:
        OSError, ValueError: if a file is missing, invalid, or has other keypoints than the network.
    """
    val = config.data.val_set
    image_check: ImageCheck = "once" if config.data.check_images else "never"
    file = CocoFile.read(val.annotations)
    persons = read_coco(file, val.images, config.data.skeleton, image_check)
    print(persons.summary())
    for warning in persons.warnings:
        print(f"  {warning}")
    if model.num_keypoints != persons.skeleton.num_keypoints:
        raise ValueError(
            f"{checkpoint}: expected {persons.skeleton.num_keypoints} keypoints, as in {val.annotations}, got "
            f"{model.num_keypoints}"
        )
    if model.skeleton is not None and model.skeleton.keypoints != persons.skeleton.keypoints:
        raise ValueError(
            f"{checkpoint}: expected keypoints {list(persons.skeleton.keypoints)}, as in {val.annotations}, got "
            f"{list(model.skeleton.keypoints)}"
        )
    if model.input_size != config.model.input_size:
        print(f"input size: trained with {model.input_size}, evaluated with {config.model.input_size} (configuration)")
    gt = GroundTruth.from_coco(file, config.data.skeleton)
    if config.data.boxes is None:
        return persons, None, gt
    boxes = read_detections(config.data.boxes, persons, config.eval.box_threshold)
    print(boxes.summary())
    return persons, boxes, gt


def run_evaluation(
    model: Model,
    persons: CocoPersons,
    boxes: Detections | None,
    config: Config,
    gt: GroundTruth | None = None,
    accelerator: Accelerator | None = None,
) -> EvalResult:
    """Evaluates a model according to a configuration, with a progress bar.

    Args:
        model: a model that supports the configured input size.
        persons: the dataset, see `read_val_set`.
        boxes: detected boxes; None uses those of the ground truth.
        config: input size and evaluation protocol.
        gt: the ground truth for COCOeval; by default it is read from the annotation file.
        accelerator: distributes the persons over its processes.

    Raises:
        ValueError: if the model does not support the configured input size.
    """
    return evaluate_model(
        model.with_input_size(config.model.input_size),
        persons,
        boxes,
        config.eval,
        padding=config.data.padding,
        workers=config.train.workers if config.train.workers is not None else default_num_workers(),
        gt=gt,
        accelerator=accelerator,
        progress=is_main(accelerator),
    )
