"""Crops of persons: repeatable, in an order of their own, and the same for training and testing."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from posedy.config import AugmentConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.dataset import BoxCrops, EpochSampler, TrainingCrops, use_one_thread
from posedy.data.photos import read_photo
from posedy.data.synthetic import draw_dataset
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop

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
        a, b = one[key], other[key]
        assert (a["crop"] == b["crop"]).all()
        assert (a["keypoints"] == b["keypoints"]).all()
    assert not np.array_equal(one[0, 3]["keypoints"], one[1, 3]["keypoints"])
    reseeded = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=5)
    assert not np.array_equal(one[0, 3]["keypoints"], reseeded[0, 3]["keypoints"])


def test_workers_make_the_same_batches(persons: CocoPersons) -> None:
    crops = TrainingCrops([persons], SIZE, AugmentConfig(), 1.25, seed=4)

    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        sampler = EpochSampler(len(crops), 4, seed=0)
        return list(DataLoader(crops, batch_sampler=sampler, num_workers=workers, worker_init_fn=use_one_thread))

    for one, other in zip(batches(0), batches(2), strict=True):
        for name in one:
            assert torch.equal(one[name], other[name])


def test_training_and_testing_see_the_same_crop(persons: CocoPersons) -> None:
    train = TrainingCrops([persons], SIZE, STILL, 1.25, seed=0)
    test = BoxCrops(persons, persons.image_index, persons.boxes, SIZE, 1.25)
    for index in range(len(persons)):
        sample = train[0, index]
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
        assert both[0, index]["annotation_id"] == both[0, index + len(persons)]["annotation_id"]
        assert (both[0, index]["crop"] == both[0, index + len(persons)]["crop"]).all()


def test_sets_of_other_keypoints_are_refused(persons: CocoPersons) -> None:
    import dataclasses

    skeleton = dataclasses.replace(persons.skeleton, keypoints=tuple(f"k{i}" for i in range(17)))
    other = dataclasses.replace(persons, skeleton=skeleton)
    with pytest.raises(ValueError, match="differ in their keypoints"):
        TrainingCrops([persons, other], SIZE, STILL, 1.25, seed=0)


def test_an_epoch_visits_everyone_once_in_an_order_of_its_own() -> None:
    sampler = EpochSampler(10, 4, seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_position(epoch)
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert {e for batch in batches for e, _ in batch} == {epoch}
        orders.append([index for batch in batches for _, index in batch])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]
    sampler.set_position(0, 2)
    assert [index for batch in sampler for _, index in batch] == orders[0][8:]


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("size", [8, 9, 10, 11])
def test_ranks_share_each_batch(size: int, world_size: int) -> None:
    whole = list(EpochSampler(size, 4 * world_size, seed=1))
    parts = [
        list(EpochSampler(size, 4 * world_size, seed=1, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert len({len(share) for share in shares}) == 1
        assert {key for share in shares for key in share} >= set(batch)


def test_a_photo_that_has_gone_is_named(persons: CocoPersons, tmp_path: Path) -> None:
    import dataclasses

    gone = dataclasses.replace(persons, image_dir=tmp_path)
    with pytest.raises(OSError, match=r"000000000001\.jpg"):
        TrainingCrops([gone], SIZE, STILL, 1.25, seed=0)[0, 0]
