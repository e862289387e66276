"""Unlabeled persons: reading of boxes, pairs of crops, and batches of labeled and unlabeled samples."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posedy.config import AugmentConfig, ConsistencyConfig
from posedy.data.coco import read_coco
from posedy.data.datasets import SampleIndex, TopDownTrainDataset
from posedy.data.issues import CocoFileError
from posedy.data.loaders import EpochBatchSampler, MixedBatchSampler, SampleLoader
from posedy.data.unlabeled import MixedDataset, UnlabeledDataset, read_unlabeled
from posedy.geometry import apply_affine
from posedy.skeleton import COCO17

from .conftest import CocoFolder

SIZE = (96, 128)


def remove_keypoints(folder: CocoFolder) -> None:
    """Leaves what a file of person boxes has."""
    folder.content["categories"] = [{"id": 1, "name": "person"}]
    for annotation in folder.content["annotations"]:
        for key in ("keypoints", "num_keypoints", "area", "segmentation", "id"):
            del annotation[key]
    folder.write()


def read(folder: CocoFolder) -> UnlabeledDataset:
    persons = read_unlabeled(folder.annotations, folder.images, COCO17)
    return UnlabeledDataset([persons], SIZE, ConsistencyConfig(), 1.25, seed=4)


def test_keypoints_are_not_checked(coco_folder: CocoFolder) -> None:
    coco_folder.content["annotations"][0]["keypoints"][0] = -1e9
    coco_folder.write()
    assert len(read_unlabeled(coco_folder.annotations, coco_folder.images, COCO17)) == 4


def test_boxes_are_read_without_keypoints(coco_folder: CocoFolder) -> None:
    with_keypoints = read_unlabeled(coco_folder.annotations, coco_folder.images, COCO17)
    remove_keypoints(coco_folder)
    persons = read_unlabeled(coco_folder.annotations, coco_folder.images, COCO17)
    for each in (persons, with_keypoints):
        assert len(each) == 4  # all but the crowd
        assert each.boxes[0].tolist() == [10.5, 5.25, 30.5, 35.25]
        assert each.image_path(int(each.image_index[2])) == coco_folder.images / "sub/b.jpg"
        assert not each.visibility.any()
    assert persons.left_out["crowd"] == 1


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"bbox": [1, 2, 3]}, ["bbox", "a.jpg"]),
        ({"bbox": [100, 5, 20, 30]}, ["outside its image", "a.jpg"]),
        ({"image_id": "x"}, ["image_id", "'x'"]),
    ],
)
def test_invalid_annotation_raises_with_its_image(
    coco_folder: CocoFolder, changes: dict[str, object], texts: list[str]
) -> None:
    remove_keypoints(coco_folder)
    coco_folder.content["annotations"][0] |= changes
    coco_folder.write()
    with pytest.raises(CocoFileError) as caught:
        read_unlabeled(coco_folder.annotations, coco_folder.images, COCO17)
    for text in (str(coco_folder.annotations), *texts):
        assert text in str(caught.value)


def test_file_without_persons_or_images_raises(coco_folder: CocoFolder) -> None:
    remove_keypoints(coco_folder)
    (coco_folder.images / "a.jpg").unlink()
    with pytest.raises(CocoFileError, match=r"a\.jpg"):
        read_unlabeled(coco_folder.annotations, coco_folder.images, COCO17)
    coco_folder.content["annotations"] = []
    coco_folder.write()
    with pytest.raises(CocoFileError, match="0 of 0 annotations"):
        read_unlabeled(coco_folder.annotations, coco_folder.images, COCO17)


def test_sample_depends_on_seed_epoch_and_index_alone(coco_folder: CocoFolder) -> None:
    one, other = read(coco_folder), read(coco_folder)
    for key in ((0, 3), (0, 1), (0, 3), (2, 3)):
        a, b = one[SampleIndex(*key)], other[SampleIndex(*key)]
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(one[SampleIndex(0, 3)]["easy_to_hard"], one[SampleIndex(1, 3)]["easy_to_hard"])


def test_easy_to_hard_maps_one_crop_to_the_other(tmp_path: Path, coco_folder: CocoFolder) -> None:
    """The easy crop, warped to the hard one, is the hard crop except for twice interpolated pixels and borders."""
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    smooth = np.stack([100 + x, 150 - y, 60 + x + y], axis=-1).astype(np.uint8)
    cv2.imwrite(str(coco_folder.images / "a.jpg"), smooth, [cv2.IMWRITE_JPEG_QUALITY, 100])
    dataset, swapped = read(coco_folder), 0
    for epoch in range(12):
        sample = dataset[SampleIndex(epoch, 1)]
        matrix = sample["easy_to_hard"]
        np.testing.assert_allclose(
            apply_affine(sample["hard_to_easy"], apply_affine(matrix, [[3, 5], [70, 90]])),
            [[3, 5], [70, 90]],
            atol=1e-3,
        )
        easy, hard = sample["easy_crop"].astype(np.float32), sample["hard_crop"].astype(np.float32)
        warped = cv2.warpAffine(easy, matrix, SIZE)
        inside = cv2.erode((np.minimum(warped, hard) > 0).all(axis=-1).astype(np.uint8), np.ones((9, 9))) > 0
        assert inside.mean() > 0.05
        assert np.abs(warped - hard)[inside].mean() < 2
        assert sample["is_swapped"] == (np.linalg.det(matrix[:, :2]) < 0)
        swapped += bool(sample["is_swapped"])
        assert sample["is_covered"].sum() == 5
    assert 0 < swapped < 12


@pytest.fixture(scope="module")
def mixed(synthetic: Path) -> MixedDataset:
    path, images = synthetic / "annotations/person_keypoints_train2017.json", synthetic / "train2017"
    labeled = read_coco(path, images)
    unlabeled = read_unlabeled(path, images, labeled.skeleton)
    return MixedDataset(
        TopDownTrainDataset([labeled], (32, 64), AugmentConfig(), 1.25, seed=4),
        UnlabeledDataset([unlabeled], (32, 64), ConsistencyConfig(), 1.25, seed=4),
    )


def sampler(rank: int = 0, world_size: int = 1) -> MixedBatchSampler:
    return MixedBatchSampler(21, 4, 7, rank, world_size, unlabeled_size=10, unlabeled_batch_size=6)


def test_batches_have_the_labeled_samples_of_an_ordinary_sampler() -> None:
    plain = EpochBatchSampler(21, 4, 7)
    for epoch in (0, 1):
        batches = sampler().batches(epoch)
        assert [[item for item in batch if not item.is_unlabeled] for batch in batches] == plain.batches(epoch)
        assert batches[2:] == sampler().batches(epoch, 2)
        assert all(sum(item.is_unlabeled for item in batch) == 6 for batch in batches)


def test_unlabeled_samples_repeat_only_after_all_were_used() -> None:
    items = [item for epoch in range(5) for batch in sampler().batches(epoch) for item in batch if item.is_unlabeled]
    assert len(items) == 5 * 6 * 6
    for start in range(0, len(items), 10):
        part = items[start : start + 10]
        assert sorted(item.index for item in part) == list(range(10))
        assert {item.epoch for item in part} == {start // 10}
    assert [item.index for item in items[:10]] != [item.index for item in items[10:20]]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_unlabeled_batches(world_size: int) -> None:
    whole = sampler().batches(1)
    ranks = [sampler(rank, world_size).batches(1) for rank in range(world_size)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        unlabeled = [[item for item in share if item.is_unlabeled] for share in shares]
        assert {len(share) for share in unlabeled} == {6 // world_size}
        assert Counter(item for share in unlabeled for item in share) == Counter(
            item for item in batch if item.is_unlabeled
        )


def test_loader_stacks_labeled_and_unlabeled_samples(mixed: MixedDataset) -> None:
    size = len(mixed.labeled)
    batches = MixedBatchSampler(size, 5, 0, unlabeled_size=len(mixed.unlabeled), unlabeled_batch_size=3)
    loaded = [list(SampleLoader(mixed, batches, workers).epoch(1, 1)) for workers in (0, 2)]
    for one, other, indices in zip(*loaded, batches.batches(1, 1), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
        labeled = [mixed.labeled[item] for item in indices if not item.is_unlabeled]
        unlabeled = [mixed.unlabeled[item] for item in indices if item.is_unlabeled]
        for samples in (labeled, unlabeled):
            for key in samples[0]:
                assert np.array_equal(one[key].numpy(), np.stack([sample[key] for sample in samples])), key
