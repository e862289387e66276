"""Evaluation of a network on a COCO dataset: boxes -> poses -> results -> COCO metrics."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from posedy.config import EvalConfig
from posedy.data.coco import CocoPersons, GroundTruth
from posedy.data.datasets import TopDownEvalDataset, set_up_worker
from posedy.data.detections import Detections
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.geometry import DEFAULT_PADDING, FloatArray
from posedy.oks import oks_nms, rescore
from posedy.poses import to_coco_results
from posedy.prediction import Model, predict_keypoints


@dataclass(frozen=True, eq=False)
class BoxPoses:
    """Poses of D bounding boxes on the images of a `CocoPersons`.

    Attributes:
        image_index: (D,) index of the image.
        boxes: (D, 4) xyxy in image pixels.
        box_scores: (D,) scores of the boxes.
        keypoints: (D, K, 2) in image pixels.
        scores: (D, K) keypoint scores.
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
    shard: tuple[int, int] = (0, 1),
    progress: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """Predicts the keypoints of crops, in batches across images.

    Args:
        model: the model; its input size is that of the crops.
        crops: the crops of the bounding boxes.
        config: flip test and batch size.
        workers: number of data loader workers.
        shard: (i, n) predicts the i-th of n disjoint shards of the crops.
        progress: whether to show a progress bar.

    Returns:
        Indices (M,) of the crops, keypoints (M, K, 2) in image pixels and their scores (M, K).
    """
    skeleton = crops.persons.skeleton
    # Shards consist of whole batches, so that the result does not depend on their number to the last bit, and of
    # consecutive ones, whose crops share images.
    batches = np.array_split(np.arange(-(-len(crops) // config.batch_size)), shard[1])[shard[0]]
    indices = np.flatnonzero(np.isin(np.arange(len(crops)) // config.batch_size, batches))
    loader: DataLoader[Any] = DataLoader(
        Subset(crops, indices.tolist()),
        batch_size=config.batch_size,
        num_workers=workers if len(indices) > config.batch_size else 0,
        worker_init_fn=set_up_worker,
        generator=torch.Generator(),  # training draws from torch's own
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
    """Converts poses to COCO results, with rescoring and OKS-NMS.

    The score of a pose is its box score times the mean of its keypoint scores above `keypoint_threshold`.

    Args:
        persons: the dataset, for image ids and sigmas.
        poses: D poses.
        areas: (D,) areas for OKS between poses; published results use those of the padded crops.
        config: thresholds.
    """
    pose_scores = rescore(poses.box_scores, poses.scores, config.keypoint_threshold)
    results = []
    order = np.argsort(poses.image_index, kind="stable")
    for in_image in np.split(order, np.flatnonzero(np.diff(poses.image_index[order])) + 1):
        if len(in_image) == 0:
            continue
        if config.nms is not None:
            kept = oks_nms(
                poses.keypoints[in_image],
                pose_scores[in_image],
                areas[in_image],
                np.asarray(persons.skeleton.sigmas),
                config.nms,
            )
            in_image = in_image[kept]
        image_id = int(persons.image_ids[poses.image_index[in_image[0]]])
        results += to_coco_results(
            image_id,
            poses.keypoints[in_image],
            poses.scores[in_image],
            pose_scores[in_image],
            persons.category_id,
        )
    return results


@dataclass(frozen=True)
class EvalProtocol:
    """Evaluation settings that affect AP.

    Attributes:
        boxes: "gt" or the name of the detections file.
        num_boxes: number of boxes.
        num_images: number of images.
        input_size: (width, height) of the crops.
        flip: whether predictions are averaged with those of the flipped crop.
        nms: OKS threshold of NMS, None without NMS.
        padding: size of a crop relative to its box.
        box_threshold: minimum box score.
        keypoint_threshold: minimum score of the keypoints that enter a pose's score.
        backend: evaluation library.
        codec: name of the codec.
        flip_shift: shift of the flipped heatmaps before averaging, in heatmap pixels.
    """

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
    codec: str
    flip_shift: int

    def __str__(self) -> str:
        """Formats the protocol as one line, to be printed above the metrics."""
        width, height = self.input_size
        nms = "off" if self.nms is None else f"OKS {self.nms:g}"
        return (
            f"boxes={self.boxes} ({self.num_boxes} on {self.num_images} images), flip={'on' if self.flip else 'off'}, "
            f"NMS={nms}, input {height}x{width}, "
            + (f"codec={self.codec}, " if self.codec != "msra" else "")
            + self.backend
        )


@dataclass(frozen=True, eq=False)
class EvalResult:
    """Metrics and protocol of an evaluation, with the COCO results and the pose of each box.

    Attributes:
        metrics: the ten COCO metrics.
        protocol: the evaluation protocol.
        results: COCO keypoint results.
        poses: the pose of each box.
    """

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
    padding: float = DEFAULT_PADDING,
    workers: int = 0,
    gt: GroundTruth | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = False,
) -> EvalResult:
    """Evaluates a model on a COCO dataset.

    Args:
        model: the model; its input size is that of the crops.
        persons: the dataset.
        boxes: detected boxes; None uses the ground-truth boxes with score 1.
        config: the evaluation protocol.
        padding: factor on the size of boxes, `DataConfig.padding`.
        workers: number of data loader workers.
        gt: the ground truth for COCOeval; by default it is read from the annotation file.
        accelerator: distributes the crops over its processes; each process returns the whole result.
        progress: whether to show a progress bar.
    """
    if boxes is None:
        image_index, box_array, scores = persons.image_index, persons.boxes, np.ones(len(persons), dtype=np.float32)
    else:
        image_index, box_array, scores = boxes.image_index, boxes.boxes, boxes.scores
    codec = model.codec
    crops = TopDownEvalDataset(persons, image_index, box_array, codec.input_size, padding)
    shard = (accelerator.process_index, accelerator.num_processes) if accelerator is not None else (0, 1)
    predictions = predict_crops(model, crops, config, workers=workers, shard=shard, progress=progress)
    gathered = gather_object([predictions]) if shard[1] > 1 else [predictions]
    indices, keypoints, keypoint_scores = (np.concatenate(values) for values in zip(*gathered, strict=True))
    order = np.argsort(indices)
    poses = BoxPoses(image_index, box_array, scores, keypoints[order], keypoint_scores[order])
    results = poses_to_results(persons, poses, crops.sizes.prod(axis=-1), config)
    metrics = evaluate_keypoints(
        gt if gt is not None else persons.annotations,
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
        padding=padding,
        box_threshold=config.box_threshold,
        keypoint_threshold=config.keypoint_threshold,
        backend=config.backend,
        codec=codec.name,
        flip_shift=codec.flip_shift,
    )
    return EvalResult(metrics, protocol, results, poses)
