"""The test of a checkpoint, from files to files."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2

from posedy.codec import HeatmapCodec
from posedy.config import Config
from posedy.data.coco import read_coco
from posedy.data.detections import read_detections
from posedy.device import choose_device
from posedy.evaluation.coco_metrics import format_metrics, metrics_to_json
from posedy.evaluation.gallery import best_median_worst
from posedy.evaluation.results import write_results
from posedy.evaluation.tester import evaluate_network
from posedy.files import write_bytes_atomically, write_json_atomically
from posedy.weights.network_file import load_checkpoint
from posedy.workers import default_workers


def measure_checkpoint(config: Config, checkpoint: Path, out: Path, device: str = "auto") -> dict[str, Any]:
    """Measures a checkpoint on a configuration's val set and writes what it found.

    The folder `out` gets metrics.json, results.json and persons.jpg, the best, median and worst persons.

    Args:
        config: the val set, the boxes (`data.boxes`, None for the ground truth's) and the protocol.
        checkpoint: a .pt or .safetensors file of the configured network.
        out: the folder for the results.
        device: name of a device, or "auto".

    Returns:
        The content of metrics.json: the ten numbers, the protocol, the model and its file.

    Raises:
        OSError, ValueError: if a file is missing or does not fit the others.
    """
    chosen = choose_device(device)
    out.mkdir(parents=True, exist_ok=True)
    net = load_checkpoint(checkpoint)
    if net.name != config.model.name:
        raise ValueError(f"{checkpoint} holds {net.name}, the configuration names {config.model.name}: use its own")
    val = config.data.val_set
    persons = read_coco(val.annotations, val.images)
    print(persons.summary())
    if net.num_keypoints != persons.skeleton.num_keypoints:
        raise ValueError(
            f"{checkpoint} predicts {net.num_keypoints} keypoints, {val.annotations} has "
            f"{persons.skeleton.num_keypoints}"
        )
    if net.skeleton is not None and net.skeleton.keypoints != persons.skeleton.keypoints:
        raise ValueError(
            f"{checkpoint} knows the keypoints {list(net.skeleton.keypoints)}, {val.annotations} has "
            f"{list(persons.skeleton.keypoints)}"
        )
    if net.input_size != config.model.input_size:
        print(
            f"the network was trained on crops of {net.input_size}, the configuration's are {config.model.input_size}"
        )
    boxes = None
    if config.data.boxes is not None:
        boxes = read_detections(config.data.boxes, persons, config.eval.box_threshold)
        print(boxes.summary())
    outcome = evaluate_network(
        net.to(chosen),
        persons,
        boxes,
        HeatmapCodec(config.model.input_size, config.model.sigma),
        config.eval,
        device=chosen,
        workers=config.train.workers if config.train.workers is not None else default_workers(),
        progress=True,
    )
    print(format_metrics(outcome.metrics, str(outcome.protocol)))
    numbers = metrics_to_json(outcome.metrics) | {
        "protocol": dataclasses.asdict(outcome.protocol),
        "model": net.name,
        "checkpoint": checkpoint.name,
    }
    write_results(out / "results.json", outcome.results)
    write_json_atomically(out / "metrics.json", numbers, indent=2)
    _, picture = cv2.imencode(".jpg", cv2.cvtColor(best_median_worst(persons, outcome.poses), cv2.COLOR_RGB2BGR))
    write_bytes_atomically(out / "persons.jpg", picture.tobytes())
    print(f"wrote {out / 'metrics.json'}, {out / 'results.json'} and {out / 'persons.jpg'}")
    return numbers
