"""The shards of persons: deterministic WebDataset files with the persons of the packed dataset."""

import importlib.util
import json
from pathlib import Path

import pytest

from posedy.data.coco import CocoPersons, read_coco
from posedy.data.shards import INDEX_FILE, ShardIndex
from tools.lab.packing import pack_persons
from tools.lab.person_shards import main, write_shards

webdataset = pytest.importorskip("webdataset", reason="writing shards needs webdataset (extra wds)")

SIZE = (96, 128)


def test_webdataset_reads_the_files_of_the_packed_dataset(persons: CocoPersons, tmp_path: Path) -> None:
    write_shards(persons, tmp_path / "shards", per_shard=4, input_size=SIZE)
    content = json.loads(pack_persons(persons, tmp_path / "packed", input_size=SIZE).read_bytes())
    annotations = {f"{record['id']:012d}": record for record in content["annotations"]}
    paths = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert {sample["__key__"] for sample in samples} == annotations.keys()
    assert len(samples) == len(persons)
    for sample in samples:
        assert json.loads(sample["json"]) == annotations[sample["__key__"]]
        assert sample["jpg"] == (tmp_path / f"packed/images/{sample['__key__']}.jpg").read_bytes()
    index = ShardIndex.read(tmp_path / "shards" / INDEX_FILE)
    assert [shard.num_samples for shard in index.shards] == [
        len(list(webdataset.WebDataset(path, shardshuffle=False))) for path in paths
    ]
    assert max(shard.num_samples for shard in index.shards) <= 4
    ids = [sample["__key__"] for sample in samples]
    assert ids != sorted(ids)


def test_same_persons_give_the_same_bytes(persons: CocoPersons, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shards(persons, tmp_path / name, per_shard=5, input_size=SIZE)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_shards_of_an_earlier_call_are_replaced(persons: CocoPersons, tmp_path: Path) -> None:
    write_shards(persons, tmp_path, per_shard=1, input_size=SIZE)
    write_shards(persons, tmp_path, shard_mb=100, input_size=SIZE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [INDEX_FILE, "persons-000000.tar"]


def test_size_limits_shards_approximately(persons: CocoPersons, tmp_path: Path) -> None:
    write_shards(persons, tmp_path, shard_mb=0.03, input_size=SIZE)
    shards = ShardIndex.read(tmp_path / INDEX_FILE).shards
    assert sum(shard.num_samples for shard in shards) == len(persons)
    assert len(shards) > 1
    sizes = [512 * sum(shard.blocks) for shard in shards]
    assert 0.015e6 < sum(sizes) / len(sizes) < 0.06e6


def test_interrupted_writing_leaves_no_index(
    persons: CocoPersons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(persons, tmp_path, input_size=SIZE)

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tools.lab.packing.read_image", broken)
    with pytest.raises(OSError, match="disk full"):
        write_shards(persons, tmp_path, input_size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [{"per_shard": 0}, {"shard_mb": 0.0}, {"quality": 0}])
def test_options_out_of_range_are_rejected(persons: CocoPersons, tmp_path: Path, option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be .* got 0"):
        write_shards(persons, tmp_path, **option)
    assert not list(tmp_path.iterdir())


def test_missing_library_is_named(persons: CocoPersons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'posedy\[wds\]'"):
        write_shards(persons, tmp_path)
    assert not list(tmp_path.iterdir())


def test_command_writes_shards(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = synthetic / "annotations/person_keypoints_val2017.json"
    options = ["--out", str(tmp_path), "--per-shard", "4", "--input-size", "96", "128"]
    main([str(annotations), str(synthetic / "val2017"), *options])
    count = len(read_coco(annotations))
    assert f"wrote {count} persons in {-(-count // 4)} shards" in capsys.readouterr().out
    index = ShardIndex.read(tmp_path / INDEX_FILE)
    assert (index.input_size, index.padding, index.num_samples) == (SIZE, 1.25, count)
