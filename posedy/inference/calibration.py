"""Crops for the calibration of int8 networks, and the comparison of their AP with that of the float network.

Of the images in order of their names or ids, every other one is for calibration, from the first; keypoints and AP are
compared on the others, which the network was not calibrated on.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.config import EvalConfig
from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.datasets import TopDownEvalDataset
from posedy.data.file_names import find_image
from posedy.evaluation.bootstrap import bootstrap_difference
from posedy.evaluation.evaluator import evaluate_model
from posedy.export.graph_file import GraphInfo
from posedy.export.int8_search import Calibration
from posedy.export.runtimes import GraphRunner
from posedy.geometry import DEFAULT_PADDING, image_to_crop_matrix, padded_region, warp_crop
from posedy.image_paths import image_paths
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors import create_detector, detector_thresholds
from posedy.inference.detectors.base import CleanedDetector
from posedy.models.pose_net import PoseNet
from posedy.prediction import GraphModel

MAX_CROPS = 256
"""Number of crops for calibration, and for the comparison of keypoints; of more, evenly spaced ones are taken."""
MAX_DROP = 0.01
"""Largest allowed decrease of AP."""
_MAX_IMAGES = 1000
"""Number of images on which AP is compared; of more, evenly spaced ones are taken."""
_DETECTOR = "posedy"


def read_calibration(
    net: PoseNet, images: str | Path, annotations: str | Path | None = None, allow_drop: bool = False
) -> Calibration:
    """Reads crops of persons for `export_onnx(..., int8=True, calibration=...)`.

    Args:
        net: the network, for the size of the crops and the keypoints.
        images: a folder of images like those of the application; with annotations, the one that their file names are
            relative to.
        annotations: a COCO keypoint file: crops are then of its boxes on those of its images that are in the folder,
            and AP is compared, too. Otherwise they are of the persons that the package's detector finds.
        allow_drop: whether a network is exported that is less accurate than allowed.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if there are too few images or persons, or the annotations are of other keypoints or images.
    """
    if annotations is not None:
        return _from_annotations(net, Path(images), Path(annotations), allow_drop)
    paths = image_paths([str(images)])
    if len(paths) < 2:
        raise ValueError(f"calibration needs at least two images, got {len(paths)} in {images}: hundreds are better")
    threshold = detector_thresholds(_DETECTOR).display
    detector = CleanedDetector(create_detector(_DETECTOR, threshold=threshold), threshold)
    crops, check_crops = (
        _detected_crops(detector, [half[index] for index in _spread(len(half), MAX_CROPS)], net.input_size)
        for half in (paths[::2], paths[1::2])
    )
    for found, purpose in ((crops, "calibration"), (check_crops, "comparison")):
        if not len(found):
            raise ValueError(f"no person was detected in the images for {purpose}, every other one of {images}")
    return Calibration(crops, check_crops, allow_drop=allow_drop)


def _detected_crops(detector: CleanedDetector, paths: Sequence[Path], input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns crops (N, H, W, 3) of the persons in images, at most `MAX_CROPS`."""
    crops = []
    for path in paths:
        image = read_image(path, apply_exif=True)
        boxes = detector.detect(rgb_to_bgr(image))[0]
        if len(boxes):
            regions = zip(*padded_region(boxes, input_size[0] / input_size[1], DEFAULT_PADDING), strict=True)
            crops += [
                warp_crop(image, image_to_crop_matrix(center, size, input_size), input_size) for center, size in regions
            ]
    if not crops:
        return np.zeros((0, input_size[1], input_size[0], 3), np.uint8)
    return np.stack([crops[index] for index in _spread(len(crops), MAX_CROPS)])


def _from_annotations(net: PoseNet, folder: Path, annotations: Path, allow_drop: bool) -> Calibration:
    file = CocoFile.read(annotations)
    persons = read_coco(file, folder, image_check="never")
    if net.num_keypoints != persons.skeleton.num_keypoints or (
        net.skeleton is not None and net.skeleton.keypoints != persons.skeleton.keypoints
    ):
        names = list(net.skeleton.keypoints) if net.skeleton is not None else f"{net.num_keypoints} keypoints"
        raise ValueError(f"{annotations}: expected the network's {names}, got {list(persons.skeleton.keypoints)}")
    present = sorted(
        int(image_id)
        for index, image_id in enumerate(persons.image_ids)
        if find_image(folder, persons.file_names[index]).is_file()
    )
    if len(present) < 2:
        raise ValueError(
            f"calibration needs at least two images of {annotations}, got {len(present)} in {folder}: expected the "
            "folder that file names are relative to"
        )
    calibration_ids, check_ids = present[::2], present[1::2]
    check_ids = [check_ids[index] for index in _spread(len(check_ids), _MAX_IMAGES)]
    with_persons = set(persons.image_ids[np.unique(persons.image_index)].tolist())
    for ids, purpose in ((calibration_ids, "calibration"), (check_ids, "comparison")):
        if with_persons.isdisjoint(ids):
            raise ValueError(
                f"{annotations}: no person with keypoints in the images for {purpose}, every other one in {folder}: "
                "expected persons in both halves"
            )
    calibration, checked = _select(file, folder, calibration_ids), _select(file, folder, check_ids)
    comparison = _AccuracyCheck(checked, file, allow_drop)
    return Calibration(
        _annotated_crops(calibration, net.input_size),
        _annotated_crops(checked, net.input_size),
        comparison,
        allow_drop,
    )


def _select(file: CocoFile, folder: Path, image_ids: Sequence[int]) -> CocoPersons:
    """Reads some images of a COCO file; images of other sizes than recorded are errors."""
    return read_coco(_subset(file, image_ids), folder, image_check="always")


def _subset(file: CocoFile, image_ids: Sequence[int]) -> CocoFile:
    """Returns a COCO file with some of its images."""
    chosen = set(image_ids)
    return dataclasses.replace(
        file,
        images=[record for record in file.images if record["id"] in chosen],
        annotations=[record for record in file.annotations if record["image_id"] in chosen],
    )


def _annotated_crops(persons: CocoPersons, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns crops (N, H, W, 3) of the persons of a COCO file, at most `MAX_CROPS`."""
    crops = TopDownEvalDataset(persons, persons.image_index, persons.boxes, input_size, DEFAULT_PADDING)
    return np.stack([crops[index]["crop"] for index in _spread(len(crops), MAX_CROPS)])


class _AccuracyCheck:
    """Compares the AP of two graphs with ground-truth boxes; see `Calibration.check`."""

    def __init__(self, persons: CocoPersons, file: CocoFile, allow_drop: bool) -> None:
        self._persons = persons
        self._gt = GroundTruth.from_coco(_subset(file, persons.image_ids.tolist()))
        self._allow_drop = allow_drop

    def __call__(self, before: GraphRunner, after: GraphRunner, info: GraphInfo) -> str:
        """Returns the difference in AP with its confidence interval.

        Raises:
            ValueError: if it is a drop of more than `MAX_DROP`, or the AP is too low to drop as much, and that is not
                allowed.
        """
        flip = info.flip if info.decodes else info.skeleton is not None
        config = EvalConfig(flip=flip)
        results = []
        for runner in (before, after):
            model = GraphModel(runner, info, torch.device("cpu"), info.runtime)
            results.append(evaluate_model(model, self._persons, None, config, padding=DEFAULT_PADDING, gt=self._gt))
        gain, interval = bootstrap_difference(self._gt, (results[0].results, results[1].results))["AP"]
        text = (
            f"AP {results[1].metrics['AP']:.3f}, float {results[0].metrics['AP']:.3f}: {gain:+.3f} (95 % "
            f"{interval.low:+.3f} to {interval.high:+.3f}) on {len(self._persons.image_ids)} images that were not "
            f"used for calibration, ground-truth boxes, {'with' if flip else 'without'} the flip test"
        )
        if self._allow_drop:
            return text
        if not results[0].metrics["AP"] > MAX_DROP:
            raise ValueError(
                f"the comparison says nothing, no file was written: {text}; the float network's AP cannot drop by more "
                f"than {MAX_DROP:g}. Check that the annotations are right and the network is trained, give more "
                "images, leave out the annotations to compare keypoints, or allow the drop"
            )
        if not gain >= -MAX_DROP:
            raise ValueError(
                f"the int8 network is too inaccurate, no file was written: {text}; allowed is a drop of {MAX_DROP:g}. "
                "Calibrate on more images like those of the application, use weights in int8 only, or allow the drop"
            )
        return text


def _spread(count: int, limit: int) -> list[int]:
    """Returns up to `limit` evenly spaced indices below `count`."""
    return sorted(set(np.linspace(0, count - 1, min(count, limit)).astype(int).tolist())) if count else []
