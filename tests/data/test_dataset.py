"""Crops of persons: repeatable, in an order of their own, and the same for training and testing."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.config import AugmentConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import SampleIndex, TopDownEvalDataset, TopDownTrainDataset
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop
from posedy.images import read_image
from tools.lab.synthetic import draw_dataset

SIZE = (96, 128)
STILL = AugmentConfig(flip=0, scale_std=0, rotation_probability=0, half_body_probability=0)


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> CocoPersons:
    root = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(root, 8, 2, seed=1, processes=1)
    return read_coco(root / "annotations/person_keypoints_train2017.json", root / "train2017")


def test_a_sample_depends_on_seed_epoch_and_index_alone(persons: CocoPersons) -> None:
    one = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    other = pickle.loads(pickle.dumps(one))
    for key in ((0, 3), (0, 1), (0, 3), (2, 3)):
        a, b = one[SampleIndex(*key)], other[SampleIndex(*key)]
        assert (a["crop"] == b["crop"]).all()
        assert (a["keypoints"] == b["keypoints"]).all()
    assert not np.array_equal(one[SampleIndex(0, 3)]["keypoints"], one[SampleIndex(1, 3)]["keypoints"])
    reseeded = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=5)
    assert not np.array_equal(one[SampleIndex(0, 3)]["keypoints"], reseeded[SampleIndex(0, 3)]["keypoints"])


def test_persons_of_one_photo_share_its_decoding(persons: CocoPersons, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> NDArray[np.uint8]:
        read.append(path)
        return read_image(path)

    monkeypatch.setattr("posedy.data.datasets.read_image", counted)
    crops = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    neighbors = np.argsort(persons.image_index, kind="stable")
    together = crops.__getitems__([SampleIndex(1, int(index)) for index in neighbors])
    assert len(read) == len(set(persons.image_index.tolist())) < len(persons)
    alone = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    for index, sample in zip(neighbors, together, strict=True):
        assert (sample["crop"] == alone[SampleIndex(1, int(index))]["crop"]).all()


def test_a_draw_that_does_not_count_has_no_labels(persons: CocoPersons) -> None:
    crops = TopDownTrainDataset([persons], SIZE, AugmentConfig(), 1.25, seed=4)
    assert crops[SampleIndex(0, 2)]["labeled"].any()
    assert not crops[SampleIndex(0, 2, counts=False)]["labeled"].any()


def test_training_and_testing_see_the_same_crop(persons: CocoPersons) -> None:
    train = TopDownTrainDataset([persons], SIZE, STILL, 1.25, seed=0)
    test = TopDownEvalDataset(persons, persons.image_index, persons.boxes, SIZE, 1.25)
    for index in range(len(persons)):
        sample = train[SampleIndex(0, index)]
        assert (sample["crop"] == test[index]["crop"]).all()
        in_crop = apply_affine(test.image_to_crop(index), persons.keypoints[index])
        assert np.abs(sample["keypoints"] - in_crop).max() < 1e-2
        photo = read_image(persons.image_path(int(persons.image_index[index])))
        matrix = image_to_crop_matrix(*padded_region(persons.boxes[index], 0.75, 1.25), SIZE)
        assert (warp_crop(photo, matrix, SIZE) == test[index]["crop"]).all()


def test_several_sets_follow_one_another(persons: CocoPersons) -> None:
    both = TopDownTrainDataset([persons, persons], SIZE, STILL, 1.25, seed=0)
    assert len(both) == 2 * len(persons)
    for index in (0, len(persons) - 1):
        assert (
            both[SampleIndex(0, index)]["annotation_id"] == both[SampleIndex(0, index + len(persons))]["annotation_id"]
        )
        assert (both[SampleIndex(0, index)]["crop"] == both[SampleIndex(0, index + len(persons))]["crop"]).all()


def test_sets_of_other_keypoints_are_refused(persons: CocoPersons) -> None:
    import dataclasses

    skeleton = dataclasses.replace(persons.skeleton, keypoints=tuple(f"k{i}" for i in range(17)))
    other = dataclasses.replace(persons, skeleton=skeleton)
    with pytest.raises(ValueError, match="differ in their keypoints"):
        TopDownTrainDataset([persons, other], SIZE, STILL, 1.25, seed=0)


def test_a_photo_that_has_gone_is_named(persons: CocoPersons, tmp_path: Path) -> None:
    import dataclasses

    gone = dataclasses.replace(persons, image_dir=tmp_path)
    with pytest.raises(OSError, match=r"000000000001\.jpg"):
        TopDownTrainDataset([gone], SIZE, STILL, 1.25, seed=0)[SampleIndex(0, 0)]
