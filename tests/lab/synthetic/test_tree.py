"""The tree that is written is COCO's, the same for the same seed, and never written over other things."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from posedy.skeleton import COCO17, Skeleton
from tools.lab.synthetic import DrawnStatistics, draw_dataset

SIZES = {"train": 5, "val": 3}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, DrawnStatistics]]:
    out = tmp_path_factory.mktemp("sets") / "drawn"
    return out, draw_dataset(out, train=5, val=3, seed=0)


def test_the_tree_is_cocos(drawn: tuple[Path, dict[str, DrawnStatistics]]) -> None:
    out, statistics = drawn
    assert set(bytes_of(out)) == {
        *(f"{split}2017/{number:012d}.jpg" for split, count in SIZES.items() for number in range(1, count + 1)),
        *(f"annotations/person_keypoints_{split}2017.json" for split in SIZES),
        "annotations/person_detections_val2017.json",
    }
    assert {split: counts.photos for split, counts in statistics.items()} == SIZES


@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_reads_it(drawn: tuple[Path, dict[str, DrawnStatistics]], split: str) -> None:
    out, statistics = drawn
    truth = COCO(str(out / f"annotations/person_keypoints_{split}2017.json"))
    assert Skeleton.from_coco_category(truth.cats[1]) == COCO17
    for image in truth.imgs.values():
        picture = cv2.imread(str(out / f"{split}2017" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
    records = list(truth.anns.values())
    assert {record["image_id"] for record in records} <= set(truth.imgs)
    crowds = [record for record in records if record["iscrowd"]]
    assert len(crowds) == statistics[split].crowds >= 1
    for record in crowds:
        x, y, w, h = record["bbox"]
        ys, xs = np.nonzero(truth.annToMask(record))
        assert len(xs) == pytest.approx(record["area"], rel=0.15)
        assert x - 1 <= xs.min() <= xs.max() <= x + w
        assert y - 1 <= ys.min() <= ys.max() <= y + h
    persons = [record for record in records if record["num_keypoints"]]
    assert len(persons) == statistics[split].persons
    assert statistics[split].unlabeled == len(records) - len(crowds) - len(persons)


def test_detections_load_as_results(drawn: tuple[Path, dict[str, DrawnStatistics]]) -> None:
    out, _ = drawn
    truth = COCO(str(out / "annotations/person_keypoints_val2017.json"))
    results = truth.loadRes(str(out / "annotations/person_detections_val2017.json"))
    assert len(results.anns) >= 1


def test_the_seed_alone_decides_every_byte(drawn: tuple[Path, dict[str, DrawnStatistics]], tmp_path: Path) -> None:
    out, statistics = drawn
    assert draw_dataset(tmp_path / "again", train=5, val=3, seed=0, processes=2) == statistics
    assert bytes_of(tmp_path / "again") == bytes_of(out)


def test_another_seed_and_the_other_split_give_other_photos(
    drawn: tuple[Path, dict[str, DrawnStatistics]], tmp_path: Path
) -> None:
    out, _ = drawn
    draw_dataset(tmp_path / "other", train=5, val=3, seed=1)
    photos = [data for folder in (out, tmp_path / "other") for data in map(Path.read_bytes, folder.rglob("*.jpg"))]
    assert len(set(photos)) == len(photos) == 2 * sum(SIZES.values())


def test_a_larger_set_begins_with_the_smaller_one(
    drawn: tuple[Path, dict[str, DrawnStatistics]], tmp_path: Path
) -> None:
    out, _ = drawn
    draw_dataset(tmp_path / "drawn", train=6, val=1, seed=0)
    photos = {name: data for name, data in bytes_of(tmp_path / "drawn").items() if name.endswith(".jpg")}
    common = photos.keys() & bytes_of(out).keys()
    assert len(common) == 6
    assert all(photos[name] == bytes_of(out)[name] for name in common)


def test_a_drawn_set_is_replaced_without_leftovers(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=3, val=2, seed=0)
    draw_dataset(tmp_path, train=1, val=1, seed=4)
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    content = json.loads((tmp_path / "annotations/person_keypoints_train2017.json").read_text())
    assert content["info"]["seed"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "train2017", "val2017"]


@pytest.mark.parametrize("foreign", ["holiday.txt", "train2017/holiday.jpg", "annotations/instances_val2017.json"])
@pytest.mark.parametrize("beside_a_drawn_set", [False, True])
def test_a_folder_with_other_things_is_refused(tmp_path: Path, foreign: str, beside_a_drawn_set: bool) -> None:
    if beside_a_drawn_set:
        draw_dataset(tmp_path, train=1, val=1, seed=0)
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    before = bytes_of(tmp_path)
    with pytest.raises(ValueError, match=r"no synthetic data set .*holiday|no synthetic data set .*instances"):
        draw_dataset(tmp_path, train=1, val=1, seed=1)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("content", ["{", "[]", '{"info": null}', '{"info": {"description": "COCO 2017 Dataset"}}'])
def test_cocos_own_tree_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "annotations").mkdir()
    for split in SIZES:
        (tmp_path / f"annotations/person_keypoints_{split}2017.json").write_text(content)
    with pytest.raises(ValueError, match="person_keypoints_train2017"):
        draw_dataset(tmp_path, train=1, val=1, seed=0)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "drawn").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        draw_dataset(tmp_path / "drawn", train=1, val=1, seed=0)


def test_nothing_is_left_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_dataset(tmp_path, train=1, val=1, seed=0)
    before = bytes_of(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tools.lab.synthetic.tree.write_json_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_dataset(tmp_path, train=2, val=1, seed=1)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize(
    ("numbers", "named"), [((0, 1, 0), "train"), ((1, 0, 0), "val"), ((-3, 1, 0), "train"), ((1, 1, -1), "seed")]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, numbers: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} must be"):
        draw_dataset(tmp_path / "drawn", *numbers)
    assert not (tmp_path / "drawn").exists()
