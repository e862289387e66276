"""How fast a worker feeds training: beside the floor (decode and warp alone) and beside the usual way."""

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
from tools.lab.benchmarks.usual_way import UsualCrops

PERSONS_PER_PHOTO = 2.6
"""COCO's mean of persons with keypoints, over the photos that have any."""

_BATCH = 32
_LARGEST_SURPLUS = 3.0

Way = Callable[[Sequence[SampleIndex]], Any]


def benchmark_data(config: Config, persons: int, rounds: int) -> dict[str, Any]:
    """Times the ways to make training samples on the photos of a training set, in one thread, in turns.

    Each round gives every way the same persons; a ratio is the median over rounds of the ratio within a round, so that
    a noisy machine slows both sides. Each way stacks its samples to batches, as a worker does; the floor stacks
    nothing. Photos come from the file system's cache, since all are read once before.

    Args:
        config: whose training set, crops and augmentation are used.
        persons: how many take part, with 2.6 to a photo.
        rounds: how often each way is timed.

    Returns:
        The numbers, in plain types.

    Raises:
        OSError, ValueError: if the data set does not fit.
    """
    train = read_coco(config.data.train_set.annotations, config.data.train_set.images)
    codec = MSRACodec(config.model.input_size, config.model.sigma)
    crops = TopDownTrainDataset([train], codec.input_size, config.augment, config.eval.padding, config.train.seed)
    usual = UsualCrops(train, codec, config.augment, config.eval.padding, config.train.seed)
    by_photo = choose_persons(train, persons, np.random.default_rng(config.train.seed))
    mixed = [by_photo[index] for index in np.random.default_rng(1).permutation(len(by_photo))]
    floor = _Floor(train, crops, by_photo)
    ways: dict[str, tuple[Way, Sequence[SampleIndex]]] = {
        "floor": (floor, mixed),
        "posedy": (lambda draws: default_collate(crops.__getitems__(draws)), mixed),
        "usual": (lambda draws: default_collate([usual[draw] for draw in draws]), mixed),
    }
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        for way, draws in ways.values():
            _time(way, draws)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            names = list(ways) if number % 2 == 0 else list(ways)[::-1]
            for name in names:
                seconds[name].append(_time(*ways[name]))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    photos = len({int(train.image_index[draw.person]) for draw in by_photo})
    return {
        "annotations": str(train.annotations),
        "persons": len(by_photo),
        "photos": photos,
        "persons_per_photo": len(by_photo) / photos,
        "input_size": list(codec.input_size),
        "rounds": rounds,
        "samples_per_second": {name: len(by_photo) / float(np.median(values)) for name, values in seconds.items()},
        "cost_of_floor": ratio(seconds["posedy"], seconds["floor"]),
        "speed_of_usual": ratio(seconds["usual"], seconds["posedy"]),
    }


def choose_persons(train: CocoPersons, persons: int, random: np.random.Generator) -> list[SampleIndex]:
    """About so many persons of random photos, photo by photo, such that a photo has 2.6 of them.

    A photo is passed over when it would bring the sum more than a few persons away from 2.6 a photo.
    """
    order = random.permutation(len(train.image_ids))
    of_photo = np.argsort(train.image_index, kind="stable")
    counts = np.bincount(train.image_index, minlength=len(train.image_ids))
    begins = np.cumsum(counts) - counts
    draws: list[SampleIndex] = []
    photos = 0
    for photo in order:
        if len(draws) >= persons:
            break
        surplus = len(draws) + counts[photo] - PERSONS_PER_PHOTO * (photos + 1)
        if counts[photo] == 0 or abs(surplus) > _LARGEST_SURPLUS:
            continue
        photos += 1
        draws += [SampleIndex(0, int(index)) for index in of_photo[begins[photo] : begins[photo] + counts[photo]]]
    return draws


class _Floor:
    """Decode and warp alone, with matrices like those of training that are there already."""

    def __init__(self, train: CocoPersons, crops: TopDownTrainDataset, draws: Sequence[SampleIndex]) -> None:
        self.train = train
        self.input_size = crops.input_size
        random = np.random.default_rng(crops.seed)
        self.matrices = {
            index: crops.variation.draw(random, crops.centers[index], crops.sizes[index], crops.poses[index])[0]
            for _, index, _ in draws
        }

    def __call__(self, draws: Sequence[SampleIndex]) -> None:
        for draw in draws:
            path = self.train.image_path(int(self.train.image_index[draw.person]))
            data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
            photo = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            assert photo is not None
            cv2.warpAffine(photo, self.matrices[draw.person], self.input_size, flags=cv2.INTER_LINEAR)


def _time(way: Way, draws: Sequence[SampleIndex]) -> float:
    """Seconds that a way takes for all draws, in batches."""
    began = time.perf_counter()
    for begin in range(0, len(draws), _BATCH):
        way(draws[begin : begin + _BATCH])
    return time.perf_counter() - began


def format_data_benchmark(numbers: dict[str, Any]) -> str:
    """The numbers as lines of text."""
    width, height = numbers["input_size"]
    lines = [
        f"{numbers['persons']} persons of {numbers['photos']} photos ({numbers['persons_per_photo']:.2f} a photo) of "
        f"{numbers['annotations']}, crops {height}x{width}, one thread, {numbers['rounds']} rounds in turns",
        *(f"{name:>24}: {speed:7.0f} samples/s per worker" for name, speed in numbers["samples_per_second"].items()),
    ]
    for key, words in (
        ("cost_of_floor", "posedy costs {} of the floor"),
        ("speed_of_usual", "posedy is {} as fast as the usual way"),
    ):
        found = numbers[key]
        lines.append(
            words.format(f"{found['median']:.2f}x")
            + f" (quartiles {found['quartile_low']:.2f} to {found['quartile_high']:.2f})"
        )
    return "\n".join(lines)
