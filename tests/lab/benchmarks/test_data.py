"""The feeding benchmark: its ways do the same work, and it says what it measured."""

from pathlib import Path

import numpy as np
import pytest

from posedy.codecs import MSRACodec
from posedy.config import AugmentConfig, load_config
from posedy.data.coco import CocoPersons
from posedy.data.datasets import SampleIndex, TopDownTrainDataset
from posedy.models.pose_net import normalize_crops
from tools.lab.benchmarks.data import benchmark_data, choose_persons, format_data_benchmark
from tools.lab.benchmarks.usual_way import UsualCrops

STILL = AugmentConfig(flip=0, scale_std=0, rotation_probability=0, half_body_probability=0)


@pytest.mark.parametrize("flip", [0, 1])
def test_the_usual_way_makes_the_same_samples(persons: CocoPersons, flip: int) -> None:
    """Without rotation and scale: the same pixels and targets, but for the rounding of a mirrored copy."""
    import torch

    codec = MSRACodec((96, 128))
    augment = STILL.model_copy(update={"flip": float(flip)})
    ours = TopDownTrainDataset([persons], codec.input_size, augment, 1.25, 0)
    usual = UsualCrops(persons, codec, augment, 1.25, 0)
    for index in range(len(persons)):
        one, other = ours[SampleIndex(0, index)], usual[SampleIndex(0, index)]
        crop = normalize_crops(torch.from_numpy(one["crop"])[None])[0]
        keypoints, labeled = torch.from_numpy(one["keypoints"])[None], torch.from_numpy(one["labeled"])[None]
        targets, weights = codec.encode(keypoints, labeled)
        if flip == 0:
            assert (crop - other["image"]).abs().max() < 1e-5
            assert np.abs(targets[0].numpy() - other["target"]).max() < 1e-6
        assert (crop - other["image"]).abs().mean() < 0.7
        assert (weights[0].numpy() == other["weight"][:, 0]).mean() > 0.9


def test_photos_are_chosen_for_cocos_mean(persons: CocoPersons) -> None:
    draws = choose_persons(persons, 1000, np.random.default_rng(0))
    assert len({draw.person for draw in draws}) == len(draws) > 0
    photos = [int(persons.image_index[draw.person]) for draw in draws]
    assert sorted(photos, key=photos.index) == photos
    for photo in set(photos):
        assert photos.count(photo) == int((persons.image_index == photo).sum())
    assert abs(len(draws) - 2.6 * len(set(photos))) <= 3


def test_the_numbers_belong_together(drawn: Path) -> None:
    numbers = benchmark_data(load_config(None, [f"data.root={drawn}", "model.input_size=[32, 64]"]), 12, 3)
    assert set(numbers["samples_per_second"]) == {"floor", "posedy", "usual"}
    for key in ("cost_of_floor", "speed_of_usual"):
        ratio = numbers[key]
        assert 0 < ratio["quartile_low"] <= ratio["median"] <= ratio["quartile_high"]
    assert f"{numbers['cost_of_floor']['median']:.2f}x of the floor" in format_data_benchmark(numbers)
