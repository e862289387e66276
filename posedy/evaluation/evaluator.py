"""Testing a network on a COCO set: boxes -> poses -> results -> COCO's numbers."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from posedy.codecs import Coding, make_codec
from posedy.config import Config, EvalConfig
from posedy.data.coco import CocoPersons, GroundTruth
from posedy.data.coco_results import to_coco_results
from posedy.data.datasets import TopDownEvalDataset, set_up_worker
from posedy.data.detections import Detections
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.geometry import FloatArray
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint
from posedy.models.registry import is_dynamic
from posedy.oks import oks_nms, rescore
from posedy.prediction import GraphModel, Model, load_model, predict_keypoints


@dataclass(frozen=True, eq=False)
class BoxPoses:
    """One pose for each of D boxes on the images of a `CocoPersons`.

    Attributes:
        image_index: (D,) index of the image.
        boxes: (D, 4) xyxy in image pixels.
        box_scores: (D,).
        keypoints: (D, K, 2) in image pixels.
        scores: (D, K) of the keypoints.
    """

    image_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    keypoints: NDArray[np.float64]
    scores: NDArray[np.float32]


def predict_crops(
    model: Model,
    crops: TopDownEvalDataset,
    config: EvalConfig,
    *,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
    progress: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """Predicts the keypoints of crops; persons of several images are batched together.

    Args:
        model: predicts crops of the size of `crops`.
        crops: of the boxes.
        config: flip and batch size.
        workers: processes that load crops.
        part: (i, n) takes the i-th of n parts; together they are all crops, each once.
        progress: whether to show a bar.

    Returns:
        Indices (M,) of the crops, keypoints (M, K, 2) in image pixels and their scores (M, K).
    """
    skeleton = crops.persons.skeleton
    # Whole batches of the whole, so that the last digits do not depend on the number of parts; neighbors, which share
    # their photo.
    batches = np.array_split(np.arange(-(-len(crops) // config.batch_size)), part[1])[part[0]]
    indices = np.flatnonzero(np.isin(np.arange(len(crops)) // config.batch_size, batches))
    loader: DataLoader[Any] = DataLoader(
        Subset(crops, indices.tolist()),
        batch_size=config.batch_size,
        num_workers=workers if len(indices) > config.batch_size else 0,
        worker_init_fn=set_up_worker,
    )
    keypoints: list[FloatArray] = [np.zeros((0, skeleton.num_keypoints, 2))]
    scores = [np.zeros((0, skeleton.num_keypoints), dtype=np.float32)]
    flip_permutation = skeleton.flip_permutation if config.flip else None
    with tqdm(total=len(indices), desc="test", unit="person", disable=None if progress else True) as bar:
        for batch in loader:
            image_to_crop = np.stack([crops.image_to_crop(int(index)) for index in batch["index"]])
            in_image, peaks = predict_keypoints(model, batch["crop"].numpy(), image_to_crop, flip_permutation)
            keypoints.append(in_image)
            scores.append(peaks)
            bar.update(len(peaks))
    return indices, np.concatenate(keypoints), np.concatenate(scores)


def poses_to_results(
    persons: CocoPersons, poses: BoxPoses, areas: NDArray[np.float64], config: EvalConfig
) -> list[dict[str, Any]]:
    """Rescores the poses and suppresses near duplicates image by image: COCO results.

    A person's score is its box's times the mean of its keypoint scores over `keypoint_threshold`.

    Args:
        persons: the set, for image ids and sigmas.
        poses: D poses.
        areas: (D,) for OKS among poses: those of the padded crops, by the protocol behind published numbers.
        config: thresholds.
    """
    person_scores = rescore(poses.box_scores, poses.scores, config.keypoint_threshold)
    results = []
    order = np.argsort(poses.image_index, kind="stable")
    for of_image in np.split(order, np.flatnonzero(np.diff(poses.image_index[order])) + 1):
        if len(of_image) == 0:
            continue
        if config.nms is not None:
            kept = oks_nms(
                poses.keypoints[of_image],
                person_scores[of_image],
                areas[of_image],
                np.asarray(persons.skeleton.sigmas),
                config.nms,
            )
            of_image = of_image[kept]
        image_id = int(persons.image_ids[poses.image_index[of_image[0]]])
        results += to_coco_results(
            image_id,
            poses.keypoints[of_image],
            poses.scores[of_image],
            person_scores[of_image],
            persons.category_id,
        )
    return results


@dataclass(frozen=True)
class EvalProtocol:
    """What a reader must know to compare an AP; `flip_shift` is in cells, of the mirrored heatmaps before averaging."""

    boxes: str
    num_boxes: int
    num_images: int
    input_size: tuple[int, int]
    flip: bool
    nms: float | None
    padding: float
    box_threshold: float
    keypoint_threshold: float
    backend: str
    coding: Coding
    flip_shift: int

    def __str__(self) -> str:
        """One line, to stand above the numbers."""
        width, height = self.input_size
        nms = "off" if self.nms is None else f"OKS {self.nms:g}"
        return (
            f"boxes={self.boxes} ({self.num_boxes} on {self.num_images} images), flip={'on' if self.flip else 'off'}, "
            f"NMS={nms}, input {height}x{width}, "
            + (f"{self.coding} coding, " if self.coding != "paper" else "")
            + self.backend
        )


@dataclass(frozen=True, eq=False)
class EvalResult:
    """What a test found: COCO's ten numbers with their protocol, the results they are of, and a pose for each box."""

    metrics: dict[str, float]
    protocol: EvalProtocol
    results: list[dict[str, Any]]
    poses: BoxPoses


def evaluate_model(
    model: Model,
    persons: CocoPersons,
    boxes: Detections | None,
    config: EvalConfig,
    *,
    workers: int = 0,
    truth: GroundTruth | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = False,
) -> EvalResult:
    """Evaluates a model on a COCO set.

    Args:
        model: the model; its codec has the size of the crops.
        persons: the set.
        boxes: of a detector; None is the ground truth's boxes with score 1.
        config: the protocol.
        workers: processes that load crops.
        truth: the annotation file for COCOeval, if it has been read already.
        accelerator: of several processes, each of which tests its part; every process gets the whole outcome.
        progress: whether to show a bar.
    """
    if boxes is None:
        image_index, box_array, scores = persons.image_index, persons.boxes, np.ones(len(persons), dtype=np.float32)
    else:
        image_index, box_array, scores = boxes.image_index, boxes.boxes, boxes.scores
    codec = model.codec
    crops = TopDownEvalDataset(persons, image_index, box_array, codec.input_size, config.padding)
    part = (accelerator.process_index, accelerator.num_processes) if accelerator is not None else (0, 1)
    found = predict_crops(model, crops, config, workers=workers, part=part, progress=progress)
    found_by_all = gather_object([found]) if part[1] > 1 else [found]
    indices, keypoints, keypoint_scores = (np.concatenate(values) for values in zip(*found_by_all, strict=True))
    order = np.argsort(indices)
    poses = BoxPoses(image_index, box_array, scores, keypoints[order], keypoint_scores[order])
    results = poses_to_results(persons, poses, crops.sizes.prod(axis=-1), config)
    metrics = evaluate_keypoints(
        truth if truth is not None else persons.annotations,
        results,
        sigmas=persons.skeleton.sigmas,
        backend=config.backend,
    )
    protocol = EvalProtocol(
        boxes="gt" if boxes is None else boxes.path.name,
        num_boxes=len(box_array),
        num_images=len(persons.image_ids),
        input_size=codec.input_size,
        flip=config.flip,
        nms=config.nms,
        padding=config.padding,
        box_threshold=config.box_threshold,
        keypoint_threshold=config.keypoint_threshold,
        backend=config.backend,
        coding=codec.coding,
        flip_shift=codec.flip_shift,
    )
    return EvalResult(metrics, protocol, results, poses)


def load_configured_network(config: Config, checkpoint: Path) -> PoseNet:
    """Loads a checkpoint of the configured network, in evaluation mode, on the CPU.

    Raises:
        OSError, ValueError: if the file is missing, is not a checkpoint, or holds another network.
    """
    net = load_checkpoint(checkpoint)
    _check_configured(config, net, checkpoint)
    return net


def load_tested_model(config: Config, checkpoint: Path, device: str) -> Model:
    """Loads the configured network, or an exported graph of it, as training measures it: not fused.

    Raises:
        OSError, ValueError: if the file is missing, is neither, contains another network, or the device is absent.
    """
    model = load_model(checkpoint, device, fused=False)
    if isinstance(model, GraphModel) and model.info.decodes:
        raise ValueError(f"{checkpoint} gives keypoints, heatmaps are wanted: export it without --decode")
    _check_configured(config, model, checkpoint)
    if isinstance(model, GraphModel) and model.input_size != config.model.input_size:
        raise ValueError(
            f"{checkpoint} takes crops of {model.input_size} and no others, the configuration's are "
            f"{config.model.input_size}: test it with model.input_size={list(model.input_size)}"
        )
    return model


def _check_configured(config: Config, net: PoseNet | Model, checkpoint: Path) -> None:
    """Makes sure that a network is the configured one.

    Raises:
        ValueError: if it is another.
    """
    if net.name != config.model.name:
        raise ValueError(f"{checkpoint} holds {net.name}, the configuration names {config.model.name}: use its own")
    model = config.model
    asked = {"num_kernels": model.num_kernels, "output": model.output, "coding": model.coding, **model.options}
    held = {name: value for name, value in net.options.items() if name != "num_keypoints"}
    if not is_dynamic(net.name):
        held["num_kernels"] = model.num_kernels  # older files record any number, which static networks do not use
    # a sigma that is not given equals the default of the configured input size
    asked["sigma"] = make_codec(model.coding, model.input_size, model.sigma).target_sigma
    held["sigma"] = dataclasses.replace(net.codec, input_size=model.input_size).target_sigma
    for name in sorted(asked.keys() | held.keys()):
        if asked.get(name) != held.get(name):
            raise ValueError(
                f"{checkpoint} holds a network of {name}={held.get(name, 'default')}, the configuration says "
                f"{asked.get(name, 'default')}: use its own configuration"
            )
