"""Crop datasets: reproducible samples, and equal crops in training and evaluation."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from posedy.config import AugmentConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import SampleIndex, TopDownEvalDataset, TopDownTrainDataset
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop
from posedy.images import read_image
from tools.lab.synthetic import generate_dataset

SIZE = (96, 128)
IDENTITY = AugmentConfig(flip_probability=0, scale_std=0, rotation_probability=0, half_body_probability=0)


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> CocoPersons:
    root = tmp_path_factory.mktemp("synthetic") / "set"
    generate_dataset(root, 8, 2, seed=1, processes=1)
    return read_coco(root / "annotations/person_keypoints_train2017.json", root / "train2017")


def test_sample_depends_on_seed_epoch_and_index_alone(persons: CocoPersons) -> None:
    one = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    other = pickle.loads(pickle.dumps(one))
    for key in ((0, 3), (0, 1), (0, 3), (2, 3)):
        a, b = one[SampleIndex(*key)], other[SampleIndex(*key)]
        assert (a["crop"] == b["crop"]).all()
        assert (a["keypoints"] == b["keypoints"]).all()
    assert not np.array_equal(one[SampleIndex(0, 3)]["keypoints"], one[SampleIndex(1, 3)]["keypoints"])
    reseeded = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=5)
    assert not np.array_equal(one[SampleIndex(0, 3)]["keypoints"], reseeded[SampleIndex(0, 3)]["keypoints"])


def test_consecutive_samples_share_decoding(persons: CocoPersons, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counting_read(path: Path) -> NDArray[np.uint8]:
        read.append(path)
        return read_image(path)

    monkeypatch.setattr("posedy.data.datasets.read_image", counting_read)
    dataset = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    neighbors = np.argsort(persons.image_index, kind="stable")
    samples = dataset.__getitems__([SampleIndex(1, int(index)) for index in neighbors])
    assert len(read) == len(set(persons.image_index.tolist())) < len(persons)
    fresh = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    for index, sample in zip(neighbors, samples, strict=True):
        assert (sample["crop"] == fresh[SampleIndex(1, int(index))]["crop"]).all()


def test_padding_sample_is_unlabeled(persons: CocoPersons) -> None:
    dataset = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    assert dataset[SampleIndex(0, 2)]["labeled"].any()
    assert not dataset[SampleIndex(0, 2, is_padding=True)]["labeled"].any()


def test_integer_index_is_the_sample_of_epoch_zero(persons: CocoPersons) -> None:
    dataset = TopDownTrainDataset([persons, persons], SIZE, AugmentConfig(), 1.25, seed=4)
    for index in (0, np.int64(len(persons) + 1), len(dataset) - 1):
        sample, expected = dataset[index], dataset[SampleIndex(0, int(index))]
        assert sample.keys() == expected.keys()
        for key, value in sample.items():
            assert np.array_equal(value, expected[key])
    assert len(list(dataset)) == len(dataset)
    for batch in DataLoader(dataset, batch_size=len(dataset)):
        assert batch["crop"].shape == (len(dataset), SIZE[1], SIZE[0], 3)
    for invalid in (len(dataset), -1):
        with pytest.raises(IndexError, match=str(invalid)):
            dataset[invalid]


def test_crops_of_training_and_evaluation_are_equal(persons: CocoPersons) -> None:
    train = TopDownTrainDataset([persons], SIZE, IDENTITY, 1.25, seed=0)
    test = TopDownEvalDataset(persons, persons.image_index, persons.boxes, SIZE, 1.25)
    for index in range(len(persons)):
        sample = train[SampleIndex(0, index)]
        assert (sample["crop"] == test[index]["crop"]).all()
        in_crop = apply_affine(test.image_to_crop(index), persons.keypoints[index])
        assert np.abs(sample["keypoints"] - in_crop).max() < 1e-2
        image = read_image(persons.image_path(int(persons.image_index[index])))
        matrix = image_to_crop_matrix(*padded_region(persons.boxes[index], 0.75, 1.25), SIZE)
        assert (warp_crop(image, matrix, SIZE) == test[index]["crop"]).all()


def test_several_sets_are_concatenated(persons: CocoPersons) -> None:
    both = TopDownTrainDataset([persons, persons], SIZE, IDENTITY, 1.25, seed=0)
    assert len(both) == 2 * len(persons)
    for index in (0, len(persons) - 1):
        assert (
            both[SampleIndex(0, index)]["annotation_id"] == both[SampleIndex(0, index + len(persons))]["annotation_id"]
        )
        assert (both[SampleIndex(0, index)]["crop"] == both[SampleIndex(0, index + len(persons))]["crop"]).all()


def test_images_of_several_sets_are_read_from_their_own_folders(persons: CocoPersons) -> None:
    other = read_coco(
        persons.annotations.with_name("person_keypoints_val2017.json"), persons.image_dir.with_name("val2017")
    )
    assert len(other) < len(persons)
    sets = (persons, other, persons)
    combined = TopDownTrainDataset(sets, SIZE, IDENTITY, 1.25, seed=0)
    expected = [
        dataset[SampleIndex(0, index)]
        for dataset in (TopDownTrainDataset([each], SIZE, IDENTITY, 1.25, seed=0) for each in sets)
        for index in range(len(dataset))
    ]
    assert len(combined) == len(expected)
    for index, sample in enumerate(expected):
        for key, value in combined[SampleIndex(0, index)].items():
            assert np.array_equal(value, sample[key]), (index, key)


def test_sets_with_different_keypoints_raise(persons: CocoPersons) -> None:
    skeleton = dataclasses.replace(persons.skeleton, keypoints=tuple(f"k{i}" for i in range(17)))
    other = dataclasses.replace(persons, skeleton=skeleton)
    with pytest.raises(ValueError, match="differ in their keypoints"):
        TopDownTrainDataset([persons, other], SIZE, IDENTITY, 1.25, seed=0)


def test_missing_image_raises_with_its_name(persons: CocoPersons, tmp_path: Path) -> None:
    missing = dataclasses.replace(persons, image_dir=tmp_path)
    with pytest.raises(OSError, match=r"000000000001\.jpg"):
        TopDownTrainDataset([missing], SIZE, IDENTITY, 1.25, seed=0)[SampleIndex(0, 0)]
