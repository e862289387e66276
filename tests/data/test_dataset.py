"""Crops of persons: repeatable, in an order of their own, and the same for training and testing."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.config import AugmentConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import BoxCrops, Draw, TrainingCrops
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop
from posedy.images import read_photo
from tools.lab.synthetic import draw_dataset

SIZE = (96, 128)
STILL = AugmentConfig(flip=0, scale_std=0, rotation_probability=0, half_body_probability=0)


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> CocoPersons:
    root = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(root, 8, 2, seed=1, processes=1)
    return read_coco(root / "annotations/person_keypoints_train2017.json", root / "train2017")


def test_a_sample_depends_on_seed_epoch_and_index_alone(persons: CocoPersons) -> None:
    one = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    other = pickle.loads(pickle.dumps(one))
    for key in ((0, 3), (0, 1), (0, 3), (2, 3)):
        a, b = one[Draw(*key)], other[Draw(*key)]
        assert (a["crop"] == b["crop"]).all()
        assert (a["keypoints"] == b["keypoints"]).all()
    assert not np.array_equal(one[Draw(0, 3)]["keypoints"], one[Draw(1, 3)]["keypoints"])
    reseeded = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=5)
    assert not np.array_equal(one[Draw(0, 3)]["keypoints"], reseeded[Draw(0, 3)]["keypoints"])


def test_persons_of_one_photo_share_its_decoding(persons: CocoPersons, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> NDArray[np.uint8]:
        read.append(path)
        return read_photo(path)

    monkeypatch.setattr("posedy.data.datasets.read_photo", counted)
    crops = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    neighbours = np.argsort(persons.image_index, kind="stable")
    together = crops.__getitems__([Draw(1, int(index)) for index in neighbours])
    assert len(read) == len(set(persons.image_index.tolist())) < len(persons)
    alone = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    for index, sample in zip(neighbours, together, strict=True):
        assert (sample["crop"] == alone[Draw(1, int(index))]["crop"]).all()


def test_a_draw_that_does_not_count_has_no_labels(persons: CocoPersons) -> None:
    crops = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    assert crops[Draw(0, 2)]["labelled"].any()
    assert not crops[Draw(0, 2, counts=False)]["labelled"].any()


def test_training_and_testing_see_the_same_crop(persons: CocoPersons) -> None:
    train = TrainingCrops([persons], SIZE, STILL, 1.25, seed=0)
    test = BoxCrops(persons, persons.image_index, persons.boxes, SIZE, 1.25)
    for index in range(len(persons)):
        sample = train[Draw(0, index)]
        assert (sample["crop"] == test[index]["crop"]).all()
        in_crop = apply_affine(test.image_to_crop(index), persons.keypoints[index])
        assert np.abs(sample["keypoints"] - in_crop).max() < 1e-2
        photo = read_photo(persons.image_path(int(persons.image_index[index])))
        matrix = image_to_crop_matrix(*padded_region(persons.boxes[index], 0.75, 1.25), SIZE)
        assert (warp_crop(photo, matrix, SIZE) == test[index]["crop"]).all()


def test_several_sets_follow_one_another(persons: CocoPersons) -> None:
    both = TrainingCrops([persons, persons], SIZE, STILL, 1.25, seed=0)
    assert len(both) == 2 * len(persons)
    for index in (0, len(persons) - 1):
        assert both[Draw(0, index)]["annotation_id"] == both[Draw(0, index + len(persons))]["annotation_id"]
        assert (both[Draw(0, index)]["crop"] == both[Draw(0, index + len(persons))]["crop"]).all()


def test_sets_of_other_keypoints_are_refused(persons: CocoPersons) -> None:
    import dataclasses

    skeleton = dataclasses.replace(persons.skeleton, keypoints=tuple(f"k{i}" for i in range(17)))
    other = dataclasses.replace(persons, skeleton=skeleton)
    with pytest.raises(ValueError, match="differ in their keypoints"):
        TrainingCrops([persons, other], SIZE, STILL, 1.25, seed=0)


def test_a_photo_that_has_gone_is_named(persons: CocoPersons, tmp_path: Path) -> None:
    import dataclasses

    gone = dataclasses.replace(persons, image_dir=tmp_path)
    with pytest.raises(OSError, match=r"000000000001\.jpg"):
        TrainingCrops([gone], SIZE, STILL, 1.25, seed=0)[Draw(0, 0)]
