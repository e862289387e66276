"""Benchmark of training input: shards compared with a packed COCO dataset of the same persons."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from posedy.config import Config
from posedy.data.coco import read_coco
from posedy.data.datasets import AugmentedCropDataset, TopDownTrainDataset
from posedy.data.loaders import EpochBatchSampler, SampleLoader
from posedy.data.shards import ShardTrainDataset
from tools.lab.benchmarks.ratios import format_ratio, ratio
from tools.lab.packing import pack_persons
from tools.lab.person_shards import write_shards

_BATCH = 32
_SHARDS = 40
_WORKERS = (0, 1)


def benchmark_shards(config: Config, persons: int, rounds: int) -> dict[str, Any]:
    """Times epochs of the data loader alone on both kinds of files, interleaved, with 0 workers and with 1.

    Both have the same JPEG files, in a temporary folder and in the file system's cache.

    Args:
        config: defines the training set, the crops and the augmentation.
        persons: number of persons, chosen at random.
        rounds: number of measurements of each.

    Returns:
        The result in plain types.

    Raises:
        OSError, ValueError: if the dataset is invalid, or webdataset is not installed.
    """
    train = read_coco(config.data.train_set.annotations, config.data.train_set.images)
    chosen = np.random.default_rng(0).permutation(len(train))[:persons]
    columns = ("annotation_ids", "image_index", "boxes", "keypoints", "visibility")
    train = dataclasses.replace(train, **{name: getattr(train, name)[chosen] for name in columns})
    size, padding = config.model.input_size, config.data.padding
    options = size, config.augment, padding, config.train.seed
    threads = cv2.getNumThreads(), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        packed, shards = Path(name) / "packed", Path(name) / "shards"
        annotations = pack_persons(train, packed, input_size=size, padding=padding)
        write_shards(train, shards, per_shard=-(-len(train) // _SHARDS), input_size=size, padding=padding)
        datasets = {
            "packed": TopDownTrainDataset([read_coco(annotations, packed / "images")], *options),
            "shards": ShardTrainDataset(shards, *options),
        }
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        try:
            seconds = {workers: _measure(datasets, workers, rounds) for workers in _WORKERS}
        finally:
            cv2.setNumThreads(threads[0])
            torch.set_num_threads(threads[1])
    return {
        "annotations": str(train.annotations),
        "persons": len(train),
        "shards": len(datasets["shards"].shard_sizes),
        "input_size": list(size),
        "rounds": rounds,
        "workers": [
            {
                "workers": workers,
                "samples_per_second": {key: len(train) / float(np.median(values)) for key, values in times.items()},
                "speed_of_shards": ratio(times["packed"], times["shards"]),
            }
            for workers, times in seconds.items()
        ],
    }


def _measure(datasets: dict[str, AugmentedCropDataset], workers: int, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of an epoch of each dataset, by round; every other round has the reverse order."""
    loaders = {
        name: SampleLoader(data, EpochBatchSampler(len(data), _BATCH, 0, shard_sizes=data.shard_sizes), workers)
        for name, data in datasets.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(rounds + 1):
        for name in list(loaders)[:: 1 if epoch % 2 == 0 else -1]:
            start = time.perf_counter()
            for _ in loaders[name].epoch(epoch):
                pass
            elapsed = time.perf_counter() - start
            if workers:  # until the worker has loaded the first two batches of the next epoch
                time.sleep(4 * _BATCH * elapsed / len(datasets[name]))
            if epoch:  # the first epoch starts the worker and fills the file system's cache
                seconds[name].append(elapsed)
    return seconds


def format_shards_benchmark(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_shards`."""
    width, height = report["input_size"]
    lines = [
        f"{report['persons']} persons of {report['annotations']} in {report['shards']} shards, crops {height}x{width}, "
        f"{report['rounds']} interleaved rounds"
    ]
    for row in report["workers"]:
        speed = row["samples_per_second"]
        lines.append(
            f"{row['workers']} workers: packed {speed['packed']:.0f}, shards {speed['shards']:.0f} samples/s; shards "
            f"are {format_ratio(row['speed_of_shards'])} times as fast"
        )
    return "\n".join(lines)
