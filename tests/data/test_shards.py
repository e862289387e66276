"""Shards: the samples of the packed COCO dataset, each once per epoch, in an order that reads few shards at a time."""

import dataclasses
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posedy.config import AugmentConfig, SkeletonConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import SampleIndex, TopDownTrainDataset
from posedy.data.loaders import SHUFFLED_SHARDS, EpochBatchSampler, SampleLoader, shuffle_shards
from posedy.data.shards import INDEX_FILE, ShardTrainDataset
from tools.lab.packing import pack_persons
from tools.lab.person_shards import write_shards

pytest.importorskip("webdataset", reason="writing shards needs webdataset (extra wds)")

SIZE = (96, 128)
AUGMENT = AugmentConfig(photometric=[{"transform": "ColorJitter", "p": 0.5}])


@pytest.fixture(scope="module")
def folder(persons: CocoPersons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of three persons."""
    out = tmp_path_factory.mktemp("shards")
    write_shards(persons, out, per_shard=3, input_size=SIZE)
    return out


def read(path: Path, size: tuple[int, int] = SIZE, padding: float = 1.25, **options: Any) -> ShardTrainDataset:
    return ShardTrainDataset(path, size, AUGMENT, padding, 4, **options)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the shards to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / INDEX_FILE).read_bytes())
    change(content)
    (folder / INDEX_FILE).write_text(json.dumps(content))


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key])


# -- samples -----------------------------------------------------------------------------------------------------------


def test_samples_equal_those_of_the_packed_dataset(persons: CocoPersons, folder: Path, tmp_path: Path) -> None:
    """Pixels, keypoints and labels are equal to the bit, with the same augmentation."""
    shards = read(folder)
    packed = read_coco(pack_persons(persons, tmp_path, input_size=SIZE), tmp_path / "images")
    position = {int(person): index for index, person in enumerate(packed.annotation_ids)}
    order = [position[shards[index]["annotation_id"]] for index in range(len(shards))]
    assert sorted(order) == list(range(len(packed)))
    assert order != sorted(order)
    columns = ("annotation_ids", "image_index", "boxes", "keypoints", "visibility")
    in_order = dataclasses.replace(packed, **{name: getattr(packed, name)[order] for name in columns})
    expected = TopDownTrainDataset([in_order], SIZE, AUGMENT, 1.25, 4)
    assert shards.skeleton == expected.skeleton
    for epoch in (0, 2):
        batch = [SampleIndex(epoch, index, is_padding=index == 1) for index in range(len(shards))]
        for one, other in zip(shards.__getitems__(batch), expected.__getitems__(batch), strict=True):
            assert_equal(one, other)


def test_any_process_reads_any_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = read(folder), pickle.loads(pickle.dumps(read(folder / INDEX_FILE)))
    monkeypatch.setattr("posedy.data.shards._MAX_OPEN_FILES", 2)
    for index in (8, 0, 4, 8, np.int64(len(one) - 1)):
        assert_equal(one[index], other[index])
    assert len(one._files._files) == 2
    for invalid in (len(one), -1):
        with pytest.raises(IndexError, match=str(invalid)):
            one[invalid]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_yields_each_sample_once_and_starts_at_any_batch(folder: Path, workers: int) -> None:
    dataset = read(folder)
    sampler = EpochBatchSampler(len(dataset), 4, 0, shard_sizes=dataset.shard_sizes)
    loader = SampleLoader(dataset, sampler, workers)
    ids = [torch.cat([batch["annotation_id"] for batch in loader.epoch(epoch)]).tolist() for epoch in (0, 1)]
    assert len(set(ids[0])) == len(dataset)
    assert sorted(ids[0]) == sorted(ids[1])
    assert ids[0] != ids[1]
    expected = list(loader.epoch(1))[2:]
    for batch, other in zip(SampleLoader(dataset, sampler, workers).epoch(1, 2), expected, strict=True):
        assert_equal(batch, other)


def test_skeleton_follows_the_configuration(folder: Path) -> None:
    assert read(folder).skeleton.upper_body is not None
    assert read(folder, overrides=SkeletonConfig(flip_pairs=[])).skeleton.flip_pairs == ()


def test_larger_crops_give_a_warning(folder: Path) -> None:
    assert not read(folder).warnings
    for dataset in (read(folder, (192, 256)), read(folder, padding=1.5)):
        assert "128x96 with padding 1.25" in dataset.warnings[0]


def test_fingerprint_is_that_of_the_content(folder: Path, copy: Path, persons: CocoPersons, tmp_path: Path) -> None:
    assert read(copy).fingerprint == read(folder).fingerprint
    assert f"{len(persons)} persons" in read(folder).summary()
    write_shards(persons, tmp_path / "other", per_shard=4, input_size=SIZE)  # the order of samples differs
    assert read(tmp_path / "other").fingerprint != read(folder).fingerprint


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_shards", [1, SHUFFLED_SHARDS, 60])
def test_order_is_a_permutation(num_shards: int) -> None:
    sizes = np.random.default_rng(num_shards).integers(1, 40, num_shards)
    order = shuffle_shards(sizes, np.random.default_rng(5))
    assert sorted(order.tolist()) == list(range(sizes.sum()))
    assert (order == shuffle_shards(sizes, np.random.default_rng(5))).all()
    assert num_shards == 1 or (order != shuffle_shards(sizes, np.random.default_rng(6))).any()


def test_order_reads_few_shards_at_a_time_and_mixes_them() -> None:
    sizes = np.full(100, 50)
    shard = shuffle_shards(sizes, np.random.default_rng(0)) // 50
    first = np.array([np.flatnonzero(shard == number)[0] for number in range(100)])
    last = np.array([np.flatnonzero(shard == number)[-1] for number in range(100)])
    num_open = [int(((first <= step) & (step <= last)).sum()) for step in range(len(shard))]
    assert max(num_open) <= SHUFFLED_SHARDS + 2
    # batches of 32 in the middle of the epoch have samples of most open shards
    counts = [len(set(shard[start : start + 32])) for start in range(1000, 4000, 32)]
    assert np.mean(counts) > 12
    assert (shuffle_shards(sizes, np.random.default_rng(1))[:50] // 50 != shard[:50]).mean() > 0.8


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_each_batch_of_shards_equally(world_size: int) -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 40)
    total, batch_size = int(sizes.sum()), 12
    ranks = [
        EpochBatchSampler(total, batch_size, 7, rank, world_size, sizes).batches(3, start=2)
        for rank in range(world_size)
    ]
    whole = EpochBatchSampler(total, batch_size, 7, shard_sizes=sizes)
    for step, shares in enumerate(zip(*ranks, strict=True), start=2):
        assert len({len(share) for share in shares}) == 1
        assert sum(not item.is_padding for share in shares for item in share) == whole.num_samples(step)
    counts = Counter(item.index for batches in ranks for batch in batches for item in batch if not item.is_padding)
    assert counts == Counter(item.index for batch in whole.batches(3)[2:] for item in batch)
    assert max(counts.values()) == 1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_missing_and_truncated_shards_are_named(copy: Path) -> None:
    path = copy / "persons-000001.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(OSError, match=rf"index\.json: 1 of .* {path.name} has {size - 512} bytes, expected {size}"):
        read(copy)
    path.unlink()
    (copy / "persons-000000.tar").unlink()
    with pytest.raises(OSError, match=rf"2 of .* persons-000000\.tar is missing.* {path.name} is missing"):
        read(copy)


def test_shard_that_is_truncated_later_is_named(copy: Path) -> None:
    dataset = read(copy)
    path = copy / "persons-000000.tar"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OSError, match=rf"{path.name} ends within the sample at byte 0"):
        dataset[0]


def test_deleted_shard_is_named(copy: Path) -> None:
    dataset = read(copy)
    (copy / "persons-000000.tar").unlink()
    with pytest.raises(OSError, match=r"persons-000000\.tar cannot be read"):
        dataset[0]


def test_shard_with_other_samples_than_the_index_is_named(copy: Path) -> None:
    def swap(content: dict[str, Any]) -> None:
        blocks = content["shards"][0]["blocks"]
        blocks[0], blocks[1] = blocks[0] + 1, blocks[1] - 1

    change_index(copy, swap)
    for index in (0, 1):
        with pytest.raises(ValueError, match=r"persons-000000\.tar, byte .*KEY\.jpg and KEY\.json.*index\.json.*write"):
            read(copy)[index]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b'"bbox"', b'"bbix"', "bbox"),
        (b'"keypoints":[', b'"keypoints":[0,', "17 keypoints"),
        (b'{"id"', b'["id"', "JSON"),
    ],
)
def test_invalid_record_is_named(copy: Path, old: bytes, new: bytes, text: str) -> None:
    path = copy / "persons-000000.tar"
    content = path.read_bytes()
    start = content.index(old)
    path.write_bytes(content[:start] + new + content[start + len(new) :])
    with pytest.raises(ValueError, match=rf"persons-000000\.tar, byte 0.*{text}"):
        read(copy)[0]


def test_damaged_image_is_named(copy: Path) -> None:
    path = copy / "persons-000000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:512] + bytes(16) + content[528:])
    key = content[:100].rstrip(b"\0").decode()
    with pytest.raises(OSError, match=rf"{key} of .*persons-000000\.tar .*cannot be decoded"):
        read(copy)[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda index: index.update(shards=[]), "shards.*at least 1"),
        (lambda index: index["shards"][1].update(num_samples=2), r"shards\.1.* 2 samples, got 3"),
        (lambda index: index["shards"][0]["blocks"].__setitem__(0, 10**6), r"shards\.0.*blocks"),
        (lambda index: index["shards"][0].update(name="../persons.tar"), r"shards\.0\.name"),
        (lambda index: index.pop("category"), "category"),
        (lambda index: index.update(format="other"), "format.*posedy-person-shards-1"),
    ],
)
def test_invalid_index_is_rejected(copy: Path, change: Callable[[dict[str, Any]], object], text: str) -> None:
    change_index(copy, change)
    with pytest.raises(ValueError, match=rf"index\.json is not an index of person shards.*{text}"):
        read(copy)


def test_invalid_category_is_rejected(copy: Path) -> None:
    change_index(copy, lambda index: index["category"].update(keypoints=["nose", "nose"]))
    with pytest.raises(ValueError, match=r"index\.json cannot be used.*\n.*nose"):
        read(copy)


def test_other_files_and_folders_are_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"index\.json.*person_shards"):
        read(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"persons-000000\.tar is not an index"):
        read(folder / "persons-000000.tar")
