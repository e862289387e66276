"""Data loading benchmark: samples/s per worker, compared with decode + warp only and a reference implementation."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from posedy.codecs import MSRACodec
from posedy.config import Config
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import SampleIndex, TopDownTrainDataset
from tools.lab.benchmarks.ratios import ratio
from tools.lab.benchmarks.reference_dataset import ReferenceDataset

PERSONS_PER_IMAGE = 2.6
"""Mean number of persons with keypoints in COCO, over images with at least one."""

_BATCH = 32
_LARGEST_SURPLUS = 3.0

LoadSamples = Callable[[Sequence[SampleIndex]], Any]


def benchmark_data(config: Config, persons: int, rounds: int) -> dict[str, Any]:
    """Times three loaders of training samples in one thread, interleaved.

    All loaders get the same persons in every round. A ratio is the median of the ratios within a round, which cancels
    the noise of a busy machine. The posedy and reference loaders collate batches, as a worker does; decode + warp, the
    lower bound of the cost, does not. A warm-up round puts the images into the file system's cache.

    Args:
        config: defines the training set, the crops and the augmentation.
        persons: approximate number of persons, with 2.6 per image.
        rounds: number of measurements of each loader.

    Returns:
        The result in plain types.

    Raises:
        OSError, ValueError: if the dataset is invalid.
    """
    train = read_coco(config.data.train_set.annotations, config.data.train_set.images)
    codec = MSRACodec(config.model.input_size, config.model.sigma)
    crops = TopDownTrainDataset([train], codec.input_size, config.augment, config.data.padding, config.train.seed)
    reference = ReferenceDataset(train, codec, config.augment, config.data.padding, config.train.seed)
    by_image = choose_persons(train, persons, np.random.default_rng(config.train.seed))
    mixed = [by_image[index] for index in np.random.default_rng(1).permutation(len(by_image))]
    decode_and_warp = _DecodeAndWarp(train, crops, by_image)
    loaders: dict[str, LoadSamples] = {
        "floor": decode_and_warp,
        "posedy": lambda samples: default_collate(crops.__getitems__(samples)),
        "usual": lambda samples: default_collate([reference[sample] for sample in samples]),
    }
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        for load in loaders.values():
            _time(load, mixed)
        seconds: dict[str, list[float]] = {name: [] for name in loaders}
        for number in range(rounds):
            names = list(loaders) if number % 2 == 0 else list(loaders)[::-1]
            for name in names:
                seconds[name].append(_time(loaders[name], mixed))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    images = len({int(train.image_index[sample.index]) for sample in by_image})
    return {
        "annotations": str(train.annotations),
        "persons": len(by_image),
        "images": images,
        "persons_per_image": len(by_image) / images,
        "input_size": list(codec.input_size),
        "rounds": rounds,
        "samples_per_second": {name: len(by_image) / float(np.median(values)) for name, values in seconds.items()},
        "cost_of_floor": ratio(seconds["posedy"], seconds["floor"]),
        "speed_of_usual": ratio(seconds["usual"], seconds["posedy"]),
    }


def choose_persons(train: CocoPersons, persons: int, rng: np.random.Generator) -> list[SampleIndex]:
    """Chooses about `persons` persons of random images, grouped by image, with a mean of 2.6 per image.

    Images that would move the total more than 3 persons away from this mean are skipped.
    """
    order = rng.permutation(len(train.image_ids))
    sorted_by_image = np.argsort(train.image_index, kind="stable")
    counts = np.bincount(train.image_index, minlength=len(train.image_ids))
    begins = np.cumsum(counts) - counts
    samples: list[SampleIndex] = []
    images = 0
    for image in order:
        if len(samples) >= persons:
            break
        surplus = len(samples) + counts[image] - PERSONS_PER_IMAGE * (images + 1)
        if counts[image] == 0 or abs(surplus) > _LARGEST_SURPLUS:
            continue
        images += 1
        chosen = sorted_by_image[begins[image] : begins[image] + counts[image]]
        samples += [SampleIndex(0, int(index)) for index in chosen]
    return samples


class _DecodeAndWarp:
    """Decoding and warping only, with precomputed matrices of the training augmentation."""

    def __init__(self, train: CocoPersons, crops: TopDownTrainDataset, samples: Sequence[SampleIndex]) -> None:
        self.train = train
        self.input_size = crops.input_size
        rng = np.random.default_rng(crops.seed)
        self.matrices = {
            index: crops.random_affine.sample(rng, crops.centers[index], crops.sizes[index], crops.poses[index])[0]
            for index in [sample.index for sample in samples]
        }

    def __call__(self, samples: Sequence[SampleIndex]) -> None:
        for sample in samples:
            path = self.train.image_path(int(self.train.image_index[sample.index]))
            data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            assert image is not None
            cv2.warpAffine(image, self.matrices[sample.index], self.input_size, flags=cv2.INTER_LINEAR)


def _time(load: LoadSamples, samples: Sequence[SampleIndex]) -> float:
    """Returns the seconds for loading all samples in batches."""
    start = time.perf_counter()
    for first in range(0, len(samples), _BATCH):
        load(samples[first : first + _BATCH])
    return time.perf_counter() - start


_LABELS = {"floor": "decode + warp only", "posedy": "posedy", "usual": "reference"}


def format_data_benchmark(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_data`."""
    width, height = report["input_size"]
    lines = [
        f"{report['persons']} persons on {report['images']} images ({report['persons_per_image']:.2f} per image) of "
        f"{report['annotations']}, crops {height}x{width}, one thread, {report['rounds']} interleaved rounds",
        *(
            f"{_LABELS[name]:>24}: {speed:7.0f} samples/s per worker"
            for name, speed in report["samples_per_second"].items()
        ),
    ]
    for key, template in (
        ("cost_of_floor", "posedy takes {} the time of decode + warp only"),
        ("speed_of_usual", "posedy is {} as fast as the reference"),
    ):
        measured = report[key]
        lines.append(
            template.format(f"{measured['median']:.2f}x")
            + f" (quartiles {measured['quartile_low']:.2f} to {measured['quartile_high']:.2f})"
        )
    return "\n".join(lines)
