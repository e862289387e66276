"""The data loading benchmark: its loaders make the same samples, and its result is consistent."""

from pathlib import Path

import numpy as np
import pytest

from posedy.codecs import MSRACodec
from posedy.config import AugmentConfig, load_config
from posedy.data.coco import CocoPersons
from posedy.data.datasets import SampleIndex, TopDownTrainDataset
from posedy.models.pose_net import normalize_crops
from tools.lab.benchmarks.data import benchmark_data, choose_persons, format_data_benchmark
from tools.lab.benchmarks.reference_dataset import ReferenceDataset

NO_AUGMENTATION = AugmentConfig(flip_probability=0, scale_std=0, rotation_probability=0, half_body_probability=0)


@pytest.mark.parametrize("flip", [0, 1])
def test_reference_dataset_makes_the_same_samples(persons: CocoPersons, flip: int) -> None:
    """Without rotation and scale: the same pixels and targets, except for rounding in the flipped copy."""
    import torch

    codec = MSRACodec((96, 128))
    augment = NO_AUGMENTATION.model_copy(update={"flip": float(flip)})
    dataset = TopDownTrainDataset([persons], codec.input_size, augment, 1.25, 0)
    reference = ReferenceDataset(persons, codec, augment, 1.25, 0)
    for index in range(len(persons)):
        sample, expected = dataset[SampleIndex(0, index)], reference[SampleIndex(0, index)]
        crop = normalize_crops(torch.from_numpy(sample["crop"])[None])[0]
        keypoints, labeled = torch.from_numpy(sample["keypoints"])[None], torch.from_numpy(sample["labeled"])[None]
        targets, weights = codec.encode(keypoints, labeled)
        if flip == 0:
            assert (crop - expected["image"]).abs().max() < 1e-5
            assert np.abs(targets[0].numpy() - expected["target"]).max() < 1e-6
        assert (crop - expected["image"]).abs().mean() < 0.7
        assert (weights[0].numpy() == expected["weight"][:, 0]).mean() > 0.9


def test_chosen_images_have_cocos_mean_of_persons(persons: CocoPersons) -> None:
    samples = choose_persons(persons, 1000, np.random.default_rng(0))
    assert len({sample.index for sample in samples}) == len(samples) > 0
    images = [int(persons.image_index[sample.index]) for sample in samples]
    assert sorted(images, key=images.index) == images
    for image in set(images):
        assert images.count(image) == int((persons.image_index == image).sum())
    assert abs(len(samples) - 2.6 * len(set(images))) <= 3


def test_result_is_consistent(synthetic: Path) -> None:
    report = benchmark_data(load_config(None, [f"data.root={synthetic}", "model.input_size=[32, 64]"]), 12, 3)
    assert set(report["samples_per_second"]) == {"floor", "posedy", "usual"}
    for key in ("cost_of_floor", "speed_of_usual"):
        ratio = report[key]
        assert 0 < ratio["quartile_low"] <= ratio["median"] <= ratio["quartile_high"]
    assert f"{report['cost_of_floor']['median']:.2f}x the time of decode + warp" in format_data_benchmark(report)
