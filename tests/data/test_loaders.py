"""Batch sampling and data loading: every sample once per epoch, equal on any number of ranks and workers."""

import gc
import weakref
from collections import Counter

import pytest
import torch

from posedy.config import AugmentConfig
from posedy.data.coco import read_coco
from posedy.data.datasets import TopDownTrainDataset
from posedy.data.loaders import EpochBatchSampler, SampleLoader
from tools.lab.synthetic import generate_dataset

NUM_SAMPLES = 101


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TopDownTrainDataset:
    root = tmp_path_factory.mktemp("synthetic") / "set"
    generate_dataset(root, 14, 2, seed=1, processes=1)
    persons = read_coco(root / "annotations/person_keypoints_train2017.json", root / "train2017")
    return TopDownTrainDataset([persons], (32, 64), AugmentConfig(), 1.25, seed=4)


def sampler(rank: int = 0, world_size: int = 1, batch_size: int = 12) -> EpochBatchSampler:
    return EpochBatchSampler(NUM_SAMPLES, batch_size, 7, rank, world_size)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_each_batch_equally_and_every_sample_occurs_once(world_size: int) -> None:
    ranks = [sampler(rank, world_size).batches(3) for rank in range(world_size)]
    counts = Counter(item.index for batches in ranks for batch in batches for item in batch if not item.is_padding)
    assert counts == Counter(range(NUM_SAMPLES))
    single = sampler()
    for step, shares in enumerate(zip(*ranks, strict=True)):
        assert len({len(share) for share in shares}) == 1
        assert sum(not item.is_padding for share in shares for item in share) == single.num_samples(step)
    assert len(ranks[0]) == len(single)


def test_batches_depend_on_seed_and_epoch_alone_and_can_start_anywhere() -> None:
    one = sampler()
    assert one.batches(1) == sampler().batches(1)
    assert [[item.index for item in batch] for batch in one.batches(0)] != [
        [item.index for item in batch] for batch in one.batches(1)
    ]
    assert one.batches(1, 3) == one.batches(1)[3:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_of_ranks_form_the_batches_of_one_process(world_size: int) -> None:
    whole = sampler().batches(2)
    ranks = [sampler(rank, world_size).batches(2) for rank in range(world_size)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert {item for share in shares for item in share if not item.is_padding} == set(batch)


def test_loader_yields_the_samples_of_its_sampler(dataset: TopDownTrainDataset) -> None:
    sampler = EpochBatchSampler(len(dataset), 5, 0)
    loaders = [SampleLoader(dataset, sampler, workers) for workers in (0, 2)]
    for epoch, start in ((0, 0), (1, 2), (0, 0)):
        expected = sampler.batches(epoch)[start:]
        for loader in loaders:
            batches = list(loader.epoch(epoch, start))
            assert len(batches) == len(expected) == len(loader) - start
            for batch, indices in zip(batches, expected, strict=True):
                samples = [dataset[index] for index in indices]
                assert batch["annotation_id"].tolist() == [sample["annotation_id"] for sample in samples]
                assert torch.equal(batch["crop"], torch.stack([torch.from_numpy(s["crop"]) for s in samples]))


@pytest.mark.parametrize("workers", [0, 1])
def test_incomplete_epoch_does_not_affect_the_next(dataset: TopDownTrainDataset, workers: int) -> None:
    sampler = EpochBatchSampler(len(dataset), 5, 0)
    loader = SampleLoader(dataset, sampler, workers)
    list(loader.epoch(0))
    incomplete = loader.epoch(1)
    next(incomplete)
    incomplete.close()
    for epoch, start in ((1, 1), (1, 0), (2, 0)):
        expected = [
            [int(dataset.annotation_ids[item.index]) for item in batch] for batch in sampler.batches(epoch, start)
        ]
        assert [batch["annotation_id"].tolist() for batch in loader.epoch(epoch, start)] == expected


def test_deleted_loader_is_freed_at_once(dataset: TopDownTrainDataset) -> None:
    """Freed later by garbage collection, it would wait five seconds for each worker."""
    loader = SampleLoader(dataset, EpochBatchSampler(len(dataset), 2, seed=0), workers=1)
    batches = loader.epoch(0)
    next(batches)
    freed = weakref.ref(loader)
    gc.disable()
    try:
        del batches, loader
        assert freed() is None
    finally:
        gc.enable()
