"""The order of an epoch and the batches that come of it: everyone once, the same whoever makes them."""

from collections import Counter

import pytest
import torch

from posedy.config import AugmentConfig
from posedy.data.coco import read_coco
from posedy.data.datasets import TopDownTrainDataset
from posedy.data.loaders import CropLoader, EpochBatchSampler
from tools.lab.synthetic import draw_dataset

PERSONS = 101


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> TopDownTrainDataset:
    root = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(root, 14, 2, seed=1, processes=1)
    persons = read_coco(root / "annotations/person_keypoints_train2017.json", root / "train2017")
    return TopDownTrainDataset([persons], (32, 64), AugmentConfig(), 1.25, seed=4)


def order(rank: int = 0, world_size: int = 1, batch_size: int = 12) -> EpochBatchSampler:
    return EpochBatchSampler(PERSONS, batch_size, 7, rank, world_size)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_everyone_counts_once_and_ranks_share_each_batch_equally(world_size: int) -> None:
    ranks = [order(rank, world_size).batches(3) for rank in range(world_size)]
    everyone = Counter(draw.person for batches in ranks for batch in batches for draw in batch if draw.counts)
    assert everyone == Counter(range(PERSONS))
    whole = order()
    for step, shares in enumerate(zip(*ranks, strict=True)):
        assert len({len(share) for share in shares}) == 1
        assert sum(draw.counts for share in shares for draw in share) == whole.persons(step)
    assert len(ranks[0]) == len(whole)


def test_an_order_depends_on_seed_and_epoch_alone_and_can_be_entered_anywhere() -> None:
    one = order()
    assert one.batches(1) == order().batches(1)
    assert [[draw.person for draw in batch] for batch in one.batches(0)] != [
        [draw.person for draw in batch] for batch in one.batches(1)
    ]
    assert one.batches(1, 3) == one.batches(1)[3:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_the_batches_of_one_process(world_size: int) -> None:
    whole = order().batches(2)
    ranks = [order(rank, world_size).batches(2) for rank in range(world_size)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert {draw for share in shares for draw in share if draw.counts} == set(batch)


def test_a_loader_gives_the_samples_of_its_order(crops: TopDownTrainDataset) -> None:
    order = EpochBatchSampler(len(crops), 5, 0)
    loaders = [CropLoader(crops, order, workers) for workers in (0, 2)]
    for epoch, start in ((0, 0), (1, 2), (0, 0)):
        expected = order.batches(epoch)[start:]
        for loader in loaders:
            found = list(loader.epoch(epoch, start))
            assert len(found) == len(expected) == len(loader) - start
            for batch, draws in zip(found, expected, strict=True):
                samples = [crops[draw] for draw in draws]
                assert batch["annotation_id"].tolist() == [sample["annotation_id"] for sample in samples]
                assert torch.equal(batch["crop"], torch.stack([torch.from_numpy(s["crop"]) for s in samples]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_was_left_early_leaves_nothing_to_the_next(crops: TopDownTrainDataset, workers: int) -> None:
    order = EpochBatchSampler(len(crops), 5, 0)
    loader = CropLoader(crops, order, workers)
    list(loader.epoch(0))
    begun = loader.epoch(1)
    next(begun)
    begun.close()
    for epoch, start in ((1, 1), (1, 0), (2, 0)):
        expected = [[int(crops.annotation_ids[draw.person]) for draw in draws] for draws in order.batches(epoch, start)]
        assert [batch["annotation_id"].tolist() for batch in loader.epoch(epoch, start)] == expected
