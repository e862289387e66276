"""Generated datasets have COCO's structure, depend on the seed only and never overwrite other files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from posedy.skeleton import COCO17, Skeleton
from tools.lab.synthetic import DatasetStatistics, generate_dataset

SIZES = {"train": 5, "val": 3}


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, DatasetStatistics]]:
    out = tmp_path_factory.mktemp("sets") / "synthetic"
    return out, generate_dataset(out, train=5, val=3, seed=0)


def test_folder_structure_is_cocos(synthetic: tuple[Path, dict[str, DatasetStatistics]]) -> None:
    out, statistics = synthetic
    assert set(read_files(out)) == {
        *(f"{split}2017/{number:012d}.jpg" for split, count in SIZES.items() for number in range(1, count + 1)),
        *(f"annotations/person_keypoints_{split}2017.json" for split in SIZES),
        "annotations/person_detections_val2017.json",
    }
    assert {split: counts.images for split, counts in statistics.items()} == SIZES


@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_reads_annotations(synthetic: tuple[Path, dict[str, DatasetStatistics]], split: str) -> None:
    out, statistics = synthetic
    gt = COCO(str(out / f"annotations/person_keypoints_{split}2017.json"))
    assert Skeleton.from_coco_category(gt.cats[1]) == COCO17
    for image in gt.imgs.values():
        pixels = cv2.imread(str(out / f"{split}2017" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
    records = list(gt.anns.values())
    assert {record["image_id"] for record in records} <= set(gt.imgs)
    crowds = [record for record in records if record["iscrowd"]]
    assert len(crowds) == statistics[split].crowds >= 1
    for record in crowds:
        x, y, w, h = record["bbox"]
        ys, xs = np.nonzero(gt.annToMask(record))
        assert len(xs) == pytest.approx(record["area"], rel=0.15)
        assert x - 1 <= xs.min() <= xs.max() <= x + w
        assert y - 1 <= ys.min() <= ys.max() <= y + h
    persons = [record for record in records if record["num_keypoints"]]
    assert len(persons) == statistics[split].persons
    assert statistics[split].unlabeled == len(records) - len(crowds) - len(persons)


def test_detections_load_as_results(synthetic: tuple[Path, dict[str, DatasetStatistics]]) -> None:
    out, _ = synthetic
    gt = COCO(str(out / "annotations/person_keypoints_val2017.json"))
    results = gt.loadRes(str(out / "annotations/person_detections_val2017.json"))
    assert len(results.anns) >= 1


def test_files_depend_only_on_the_seed(synthetic: tuple[Path, dict[str, DatasetStatistics]], tmp_path: Path) -> None:
    out, statistics = synthetic
    assert generate_dataset(tmp_path / "again", train=5, val=3, seed=0, processes=2) == statistics
    assert read_files(tmp_path / "again") == read_files(out)


def test_other_seeds_and_splits_have_different_images(
    synthetic: tuple[Path, dict[str, DatasetStatistics]], tmp_path: Path
) -> None:
    out, _ = synthetic
    generate_dataset(tmp_path / "other", train=5, val=3, seed=1)
    images = [data for folder in (out, tmp_path / "other") for data in map(Path.read_bytes, folder.rglob("*.jpg"))]
    assert len(set(images)) == len(images) == 2 * sum(SIZES.values())


def test_larger_dataset_starts_with_the_smaller_one(
    synthetic: tuple[Path, dict[str, DatasetStatistics]], tmp_path: Path
) -> None:
    out, _ = synthetic
    generate_dataset(tmp_path / "synthetic", train=6, val=1, seed=0)
    images = {name: data for name, data in read_files(tmp_path / "synthetic").items() if name.endswith(".jpg")}
    common = images.keys() & read_files(out).keys()
    assert len(common) == 6
    assert all(images[name] == read_files(out)[name] for name in common)


def test_synthetic_dataset_is_replaced_completely(tmp_path: Path) -> None:
    generate_dataset(tmp_path, train=3, val=2, seed=0)
    generate_dataset(tmp_path, train=1, val=1, seed=4)
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    content = json.loads((tmp_path / "annotations/person_keypoints_train2017.json").read_text())
    assert content["info"]["seed"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "train2017", "val2017"]


@pytest.mark.parametrize("foreign", ["holiday.txt", "train2017/holiday.jpg", "annotations/instances_val2017.json"])
@pytest.mark.parametrize("in_synthetic_set", [False, True])
def test_folders_with_other_files_are_rejected(tmp_path: Path, foreign: str, in_synthetic_set: bool) -> None:
    if in_synthetic_set:
        generate_dataset(tmp_path, train=1, val=1, seed=0)
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    before = read_files(tmp_path)
    with pytest.raises(ValueError, match=Path(foreign).name):
        generate_dataset(tmp_path, train=1, val=1, seed=1)
    assert read_files(tmp_path) == before


@pytest.mark.parametrize("content", ["{", "[]", '{"info": null}', '{"info": {"description": "COCO 2017 Dataset"}}'])
def test_coco_dataset_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "annotations").mkdir()
    for split in SIZES:
        (tmp_path / f"annotations/person_keypoints_{split}2017.json").write_text(content)
    with pytest.raises(ValueError, match="person_keypoints_train2017"):
        generate_dataset(tmp_path, train=1, val=1, seed=0)


def test_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "synthetic").write_text("mine")
    with pytest.raises(ValueError, match="got a file"):
        generate_dataset(tmp_path / "synthetic", train=1, val=1, seed=0)


def test_failed_generation_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_dataset(tmp_path, train=1, val=1, seed=0)
    before = read_files(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tools.lab.synthetic.generation.write_json_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_dataset(tmp_path, train=2, val=1, seed=1)
    assert read_files(tmp_path) == before


@pytest.mark.parametrize(
    ("numbers", "name"), [((0, 1, 0), "train"), ((1, 0, 0), "val"), ((-3, 1, 0), "train"), ((1, 1, -1), "seed")]
)
def test_numbers_out_of_range_are_rejected(tmp_path: Path, numbers: tuple[int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        generate_dataset(tmp_path / "synthetic", *numbers)
    assert not (tmp_path / "synthetic").exists()
