"""Conversion between COCO keypoint files and YOLO pose datasets."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from posedy.data.check import check_coco
from posedy.data.coco import read_coco
from posedy.data.conversion import ConvertedFile
from posedy.data.issues import CocoFileError
from posedy.data.orientation import ImageHeader, read_header
from posedy.data.yolo import YoloFileError, read_yolo, write_yolo
from posedy.images import read_image
from posedy.skeleton import COCO17

from .conftest import CocoFolder, person

REPOSITORY = Path(__file__).parents[2]
COCO_FLIP = list(COCO17.flip_permutation)


def save_image(path: Path, size: tuple[int, int] = (64, 48), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("1", size).save(path, exif=exif)
    return path


class YoloFolder:
    """A dataset of two keypoints with the images a.png and b.png, each with one person."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.labels = root / "labels/train"
        self.images = root / "images/train"
        self.labels.mkdir(parents=True)
        self.description: dict[str, Any] = {
            "train": "images/train",
            "val": "images/val",
            "kpt_shape": [2, 3],
            "flip_idx": [1, 0],
            "names": {0: "person"},
            "kpt_names": {0: ["left", "right"]},
        }
        self.write()
        for stem in ("a", "b"):
            save_image(self.images / f"{stem}.png")
            self.label(stem, "0 0.5 0.5 0.5 0.25 0.25 0.5 2 0.75 0.5 1")

    def write(self, **changes: Any) -> None:
        """Writes data.yaml with changed keys; None removes a key."""
        self.description |= changes
        record = {key: value for key, value in self.description.items() if value is not None}
        (self.root / "data.yaml").write_text(yaml.safe_dump(record))

    def label(self, stem: str, *lines: str) -> None:
        (self.labels / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines))

    def read(self, **options: Any) -> ConvertedFile:
        return read_yolo(self.root, **options)


@pytest.fixture
def yolo(tmp_path: Path) -> YoloFolder:
    return YoloFolder(tmp_path / "yolo")


# ---- EXIF orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_orientation_is_that_of_opencv(suffix: str, orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[8:16, 40:56] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    stored, upright = (read_image(path, apply_exif=apply_exif) for apply_exif in (False, True))
    header = read_header(path)
    assert (header.height, header.width) == stored.shape[:2]
    assert header.upright_size[::-1] == upright.shape[:2]

    def block(image: np.ndarray) -> np.ndarray:
        """The first and last pixel of the white block as x, y."""
        ys, xs = np.nonzero(image[..., 0] > 128)
        return np.array([[xs.min(), ys.min()], [xs.max(), ys.max()]], dtype=float)

    edges = np.array([[0.0, 0.0], [1.0, 1.0]])
    for pixel_centers, first, second in (
        (True, block(stored), block(upright)),
        (False, block(stored) + edges, block(upright) + edges),
    ):
        np.testing.assert_array_equal(np.sort(header.to_upright(first, pixel_centers), axis=0), second)
        np.testing.assert_array_equal(np.sort(header.to_stored(second, pixel_centers), axis=0), first)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("orientation", [0, 9, None])
def test_invalid_orientation_is_ignored(orientation: int | None, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation or 0
    damaged = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    Image.new("L", (64, 48)).save(tmp_path / "a.jpg", exif=damaged if orientation is None else exif)
    assert read_header(tmp_path / "a.jpg") == ImageHeader(64, 48, 1)


def test_header_of_no_image_raises(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    for name, error in (("a.jpg", OSError), ("b.jpg", FileNotFoundError)):
        with pytest.raises(error, match=name):
            read_header(tmp_path / name)


def test_labels_of_a_rotated_image_become_pixels_as_stored(yolo: YoloFolder) -> None:
    save_image(yolo.images / "a.png", (64, 48), orientation=6)  # upright: 48 x 64
    yolo.label("a", f"0 0.25 0.25 0.5 0.5 {12 / 48} {16 / 64} 2 0 0 1")
    converted = yolo.read()
    assert converted.content["images"][0] == {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    annotation = converted.content["annotations"][0]
    assert annotation["bbox"] == [0, 24, 32, 24]
    assert annotation["keypoints"] == [16, 48 - 1 - 12, 2, 0, 47, 1]
    assert any("EXIF" in note for note in converted.notes)


def test_file_names_with_windows_separators_are_written(coco_folder: CocoFolder, tmp_path: Path) -> None:
    coco_folder.content["images"][1]["file_name"] = "sub\\b.jpg"
    written = write_yolo(coco_folder.content, tmp_path / "yolo", coco_folder.images)
    assert written.num_images == 4
    assert (tmp_path / "yolo/images/train/sub/b.jpg").is_file()
    assert (tmp_path / "yolo/labels/train/sub/b.txt").read_text()


# ---- Round trips

SIDES = st.integers(16, 2000)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[tuple[tuple[int, int], int]], list[dict[str, Any]]]:
    """Sizes and orientations of images, and persons within them."""
    images = draw(st.lists(st.tuples(st.tuples(SIDES, SIDES), st.integers(1, 8)), min_size=1, max_size=3))
    unit, far = st.floats(0, 1), st.floats(0.2, 1)  # pixels that cannot be fractions
    persons = []
    for image_id, (size, _) in enumerate(images, start=1):
        for _ in range(draw(st.integers(1 if image_id == 1 else 0, 3))):
            start = [draw(unit) * (side - 3) for side in size]
            extent = [2 + draw(unit) * (side - first - 2) for side, first in zip(size, start, strict=True)]
            keypoints = []
            for _ in COCO17.keypoints:
                v = draw(st.integers(0, 2)) if keypoints else 2
                keypoints += [*(draw(far) * (side - 1) for side in size), v] if v else [0.0, 0.0, 0]
            record = person(len(persons) + 1, image_id, bbox=start + extent, keypoints=keypoints)
            persons.append(record | {"num_keypoints": sum(v > 0 for v in keypoints[2::3])})
    return images, persons


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(datasets(), st.booleans())
def test_round_trip_from_coco_is_exact(
    data: tuple[list[tuple[tuple[int, int], int]], list[dict[str, Any]]], copies: bool
) -> None:
    images, persons = data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = []
        for image_id, (size, orientation) in enumerate(images, start=1):
            save_image(folder / f"images/{image_id}.png", size, orientation)
            records.append({"id": image_id, "file_name": f"{image_id}.png", "width": size[0], "height": size[1]})
        content = {"images": records, "annotations": persons, "categories": [COCO17.to_coco_category()]}
        written = write_yolo(content, folder / "yolo", folder / "images", copy=copies)
        assert (written.num_images, written.num_persons) == (len(images), len(persons))
        assert not any(written.left_out.values())
        assert not any(written.changed.values())
        converted = read_yolo(folder / "yolo").content
    assert converted["images"] == records
    assert converted["categories"] == content["categories"]
    assert len(converted["annotations"]) == len(persons)
    for before, after in zip(persons, converted["annotations"], strict=True):
        np.testing.assert_allclose(after["bbox"], before["bbox"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(after["keypoints"], before["keypoints"], rtol=0, atol=1e-6)
        for key in ("id", "image_id", "num_keypoints", "iscrowd", "category_id"):
            assert after[key] == before[key]
        assert after["area"] == pytest.approx(before["bbox"][2] * before["bbox"][3], abs=1e-3)


@pytest.mark.parametrize("split", ["train", "val"])
def test_round_trip_of_coco_images(split: str, tmp_path: Path) -> None:
    folder = REPOSITORY / "data/coco_mini"
    annotations, images = folder / f"annotations/person_keypoints_{split}2017.json", folder / f"{split}2017"
    written = write_yolo(annotations, tmp_path / "yolo", images, split)
    converted = read_yolo(tmp_path / "yolo", split)
    path = tmp_path / "converted.json"
    path.write_text(json.dumps(converted.content))
    assert check_coco(path, converted.image_dir).issues == ()
    before, after = read_coco(annotations, images), read_coco(path, converted.image_dir)
    assert written.num_persons == len(before) + before.left_out["no labeled keypoints"]
    assert written.left_out["crowd"] == before.left_out["crowd"]
    assert after.skeleton == before.skeleton
    names = [[persons.file_names[index] for index in persons.image_index] for persons in (before, after)]
    order = [np.argsort(np.array(each), kind="stable") for each in names]
    np.testing.assert_array_equal(after.boxes[order[1]], before.boxes[order[0]])
    np.testing.assert_array_equal(after.visibility[order[1]], before.visibility[order[0]])
    labeled = before.visibility[order[0]] > 0
    np.testing.assert_array_equal(after.keypoints[order[1]][labeled], before.keypoints[order[0]][labeled])


def test_round_trip_from_yolo_keeps_labels_and_description(yolo: YoloFolder, tmp_path: Path) -> None:
    converted = yolo.read()
    write_yolo(converted.content, tmp_path / "again", converted.image_dir, copy=True)
    for stem in ("a", "b"):
        assert (tmp_path / f"again/labels/train/{stem}.txt").read_text() == (yolo.labels / f"{stem}.txt").read_text()
        assert (tmp_path / f"again/images/train/{stem}.png").read_bytes() == (yolo.images / f"{stem}.png").read_bytes()
    assert yaml.safe_load((tmp_path / "again/data.yaml").read_text()) == yolo.description


# ---- From YOLO


def test_person_has_coco_keys(yolo: YoloFolder) -> None:
    converted = yolo.read()
    assert converted.image_dir == yolo.images
    assert converted.content["annotations"][1] == {
        "id": 2,
        "image_id": 2,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [16, 18, 32, 12],
        "area": 32 * 12,
        "num_keypoints": 2,
        "keypoints": [16, 24, 2, 48, 24, 1],
    }
    (category,) = converted.content["categories"]
    assert (category["name"], category["keypoints"], category["flip_pairs"]) == ("person", ["left", "right"], [[0, 1]])


def test_keypoints_without_visibility_are_visible_or_at_zero(yolo: YoloFolder) -> None:
    yolo.write(kpt_shape=[2, 2])
    yolo.label("a", "0 0.5 0.5 0.5 0.25 0.25 0.5 0 0")
    yolo.label("b", "0 0.5 0.5 0.5 0.25 0 0.5 0.25 0")
    first, second = yolo.read().content["annotations"]
    assert (first["keypoints"], first["num_keypoints"]) == ([16, 24, 2, 0, 0, 0], 1)
    assert second["keypoints"] == [0, 24, 2, 16, 0, 2]


def test_coordinates_of_unlabeled_keypoints_are_ignored(yolo: YoloFolder) -> None:
    yolo.label("a", "0 0.5 0.5 0.5 0.25 7 -3 0 0.75 0.5 2.000000")
    assert yolo.read().content["annotations"][0]["keypoints"] == [0, 0, 0, 48, 24, 2]


def test_coordinates_may_exceed_the_image_by_one_percent(yolo: YoloFolder) -> None:
    yolo.label("a", "0 0.5 1.005 0.5 0.25 -0.01 1.01 2 0.75 0.5 1")
    assert yolo.read().content["annotations"][0]["keypoints"][:3] == [-0.64, 48.48, 2]


def test_images_with_an_empty_or_missing_label_file_have_no_persons(yolo: YoloFolder) -> None:
    yolo.label("a", "", "  ")
    save_image(yolo.images / "c.png")
    converted = yolo.read()
    assert len(converted.content["images"]) == 3
    assert [annotation["image_id"] for annotation in converted.content["annotations"]] == [2]
    assert any(note.startswith("1 of 3 images") for note in converted.notes)


@pytest.mark.parametrize("names", [{0: ["x", "y"]}, [["x", "y"]], ["x", "y"]])
def test_keypoint_names_may_be_given_by_class_or_once(yolo: YoloFolder, names: Any) -> None:
    yolo.write(kpt_names=names)
    assert yolo.read().content["categories"][0]["keypoints"] == ["x", "y"]


@pytest.mark.parametrize(
    ("flip", "keypoints"),
    [(COCO_FLIP, list(COCO17.keypoints)), (None, [f"keypoint_{index}" for index in range(17)])],
)
def test_missing_keypoint_names_are_those_of_coco_or_numbers(
    yolo: YoloFolder, flip: list[int] | None, keypoints: list[str]
) -> None:
    yolo.write(kpt_shape=[17, 3], flip_idx=flip, kpt_names=None)
    for stem in ("a", "b"):
        yolo.label(stem, "0 0.5 0.5 0.5 0.25 " + " ".join(["0.5 0.5 2"] * 17))
    converted = yolo.read()
    (category,) = converted.content["categories"]
    assert category["keypoints"] == keypoints
    assert ("sigmas" in category) == ("flip_pairs" in category) == (flip is not None)
    assert any("kpt_names" in note for note in converted.notes)


@pytest.mark.parametrize(("chosen", "name", "count"), [(None, "person", 1), ("dog", "dog", 2)])
def test_one_of_several_classes_is_converted(yolo: YoloFolder, chosen: str | None, name: str, count: int) -> None:
    yolo.write(names=["dog", "person"], kpt_names=[["nose", "tail"], ["left", "right"]])
    yolo.label("a", *["0 0.5 0.5 0.5 0.25 0.25 0.5 2 0.75 0.5 1", "1 0.5 0.5 0.1 0.1 0.25 0.5 2 0.75 0.5 1"])
    converted = yolo.read(class_name=chosen)
    assert converted.content["categories"][0]["name"] == name
    assert converted.content["categories"][0]["keypoints"] == yolo.description["kpt_names"][0 if chosen else 1]
    assert len(converted.content["annotations"]) == count
    assert converted.left_out == {"of other classes": 3 - count}


def test_class_must_be_chosen_without_a_person_class(yolo: YoloFolder) -> None:
    yolo.write(names=["cat", "dog"])
    with pytest.raises(YoloFileError, match="cat, dog"):
        yolo.read()
    with pytest.raises(YoloFileError, match=r"'dogs'.*'dog'"):
        yolo.read(class_name="dogs")


BOX = "0 0.5 0.5 0.5 0.25"


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (f"{BOX} 0.5 0.5 2", "wrong number of columns", "expected 11"),
        (BOX, "wrong number of columns", "box without keypoints"),
        (f"{BOX} 0.5 0.5 0.5 0.5", "wrong number of columns", r"\[2, 2\]"),
        (f"{BOX} 0.5 x 2 0.5 0.5 2", "invalid number", "'x'"),
        (f"1 {BOX[2:]} 0.5 0.5 2 0.5 0.5 2", "unknown class", "1"),
        (f"0.5 {BOX[2:]} 0.5 0.5 2 0.5 0.5 2", "unknown class", "0.5"),
        ("0 320 0.5 0.5 0.25 0.5 0.5 2 0.5 0.5 2", "coordinate outside", "x 320"),
        ("0 0.5 0.5 0.5 1.2 0.5 0.5 2 0.5 0.5 2", "coordinate outside", "height 1.2"),
        ("0 nan 0.5 0.5 0.25 0.5 0.5 2 0.5 0.5 2", "coordinate outside", "x nan"),
        (f"{BOX} 0.5 0.5 2 0.5 -0.02 1", "coordinate outside", "y -0.02 of keypoint 1"),
        ("0 0.5 0.5 0 0.25 0.5 0.5 2 0.5 0.5 2", "box without area", "width 0"),
        (f"{BOX} 0.5 0.5 0.9 0.5 0.5 2", "invalid visibility", "v 0.9 of keypoint 0"),
    ],
)
def test_invalid_line_is_reported_with_file_and_line(yolo: YoloFolder, line: str, kind: str, text: str) -> None:
    yolo.label("b", f"{BOX} 0.5 0.5 2 0.5 0.5 2", "", line)
    with pytest.raises(YoloFileError, match=rf"{kind}.*b\.txt:3: .*{text}"):
        yolo.read()


def test_all_kinds_of_errors_are_listed_with_their_counts(yolo: YoloFolder) -> None:
    yolo.label("a", *["0 1"] * 7)
    yolo.label("b", f"{BOX} 0.5 0.5 2 0.5 0.5 5")
    with pytest.raises(YoloFileError) as caught:
        yolo.read()
    first, *kinds = str(caught.value).splitlines()
    assert str(yolo.root / "data.yaml") in first
    assert len(kinds) == 2
    assert "(7)" in kinds[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kpt_shape": None}, "kpt_shape"),
        ({"kpt_shape": [2, 4]}, r"kpt_shape.*\[2, 4\]"),
        ({"kpt_shape": "2, 3"}, "kpt_shape"),
        ({"flip_idx": [0]}, "flip_idx"),
        ({"flip_idx": [0, 2]}, "flip_idx"),
        ({"kpt_shape": [3, 3], "flip_idx": [1, 2, 0]}, "flip_idx"),
        ({"names": None}, "names"),
        ({"names": {"first": "person"}}, "names"),
        ({"kpt_names": ["only one"]}, "kpt_names"),
        ({"kpt_names": ["same", "same"]}, "kpt_names"),
        ({"train": None}, r"'train'.*val"),
        ({"train": "images/other"}, "images/other"),
        ({"train": {"a": 1}}, "train"),
    ],
)
def test_invalid_description_raises(yolo: YoloFolder, changes: dict[str, Any], text: str) -> None:
    yolo.write(**changes)
    with pytest.raises(YoloFileError, match=rf"data\.yaml.*{text}"):
        yolo.read()


@pytest.mark.parametrize("text", ["a: [", "- a list", "\x00"])
def test_file_that_is_no_description_raises(yolo: YoloFolder, text: str) -> None:
    (yolo.root / "data.yaml").write_text(text)
    with pytest.raises(YoloFileError, match=r"data\.yaml"):
        yolo.read()


def test_source_is_a_folder_with_one_yaml_file_or_that_file(yolo: YoloFolder, tmp_path: Path) -> None:
    assert read_yolo(yolo.root / "data.yaml").content == yolo.read().content
    (yolo.root / "hyp.yaml").write_text("lr0: 0.01")
    assert len(yolo.read().content["images"]) == 2
    (yolo.root / "data.yaml").rename(yolo.root / "mine.yml")
    with pytest.raises(YoloFileError, match=r"hyp\.yaml, mine\.yml"):
        yolo.read()
    (tmp_path / "labels.txt").write_text("")
    for source, error in ((tmp_path, YoloFileError), (tmp_path / "labels.txt", YoloFileError)):
        with pytest.raises(error, match=source.name):
            read_yolo(source)
    for name in ("nowhere", "nowhere.yaml"):
        with pytest.raises(FileNotFoundError, match=name):
            read_yolo(tmp_path / name)


# ---- Images of a split


def use_path_key(yolo: YoloFolder) -> None:
    yolo.write(path="..", train=f"{yolo.root.name}/images/train")


def use_leading_parent(yolo: YoloFolder) -> None:
    yolo.write(train="../images/train")


def use_path_of_another_machine(yolo: YoloFolder) -> None:
    yolo.write(path="/nowhere/datasets/yolo")


def use_absolute_paths(yolo: YoloFolder) -> None:
    yolo.write(path=str(yolo.root), train=[str(yolo.images)])


def use_list_of_images(yolo: YoloFolder) -> None:
    (yolo.root / "train.txt").write_text(f"./images/train/a.png\n\n{yolo.images / 'b.png'}\nimages/train/a.png\n")
    yolo.write(train="train.txt")


@pytest.mark.parametrize(
    "change",
    [use_path_key, use_leading_parent, use_path_of_another_machine, use_absolute_paths, use_list_of_images],
)
def test_paths_of_a_split_are_found(yolo: YoloFolder, change: Callable[[YoloFolder], None]) -> None:
    expected = yolo.read().content
    change(yolo)
    assert yolo.read().content == expected


def test_working_directory_is_not_searched_without_a_path_key(
    yolo: YoloFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(yolo.root)
    (tmp_path / "data.yaml").write_text((yolo.root / "data.yaml").read_text())
    with pytest.raises(YoloFileError, match="images/train"):
        read_yolo(tmp_path / "data.yaml")
    (tmp_path / "data.yaml").write_text(f"path: .\n{(yolo.root / 'data.yaml').read_text()}")
    assert len(read_yolo(tmp_path / "data.yaml").content["images"]) == 2


def test_file_names_have_subfolders_and_are_relative_to_the_common_folder(yolo: YoloFolder) -> None:
    save_image(yolo.root / "images/more/sub/c.png")
    yolo.write(train=["images/train", "images/more"])
    (yolo.root / "labels/more/sub").mkdir(parents=True)
    (yolo.root / "labels/more/sub/c.txt").write_text(f"{BOX} 0.5 0.5 2 0.5 0.5 2\n")
    converted = yolo.read()
    assert converted.image_dir == yolo.root / "images"
    names = [record["file_name"] for record in converted.content["images"]]
    assert names == ["train/a.png", "train/b.png", "more/sub/c.png"]
    assert len(converted.content["annotations"]) == 3
    names = [record["file_name"] for record in yolo.read(images=yolo.root).content["images"]]
    assert names[2] == "images/more/sub/c.png"
    with pytest.raises(YoloFileError, match=r"more/sub/c\.png"):
        yolo.read(images=yolo.images)


def test_labels_are_next_to_images_without_a_folder_of_that_name(yolo: YoloFolder) -> None:
    yolo.images.rename(yolo.root / "frames")
    for label in yolo.labels.iterdir():
        label.rename(yolo.root / "frames" / label.name)
    (yolo.root / "frames/notes.txt").write_text("not a label")
    yolo.write(train="frames")
    assert len(yolo.read().content["annotations"]) == 2


def test_last_folder_called_images_is_replaced(tmp_path: Path) -> None:
    yolo = YoloFolder(tmp_path / "images/yolo")
    assert len(yolo.read().content["annotations"]) == 2


def test_links_to_images_are_not_followed(yolo: YoloFolder, tmp_path: Path) -> None:
    target = (yolo.images / "a.png").rename(tmp_path / "elsewhere.png")
    (yolo.images / "a.png").symlink_to(target)
    assert [record["file_name"] for record in yolo.read().content["images"]] == ["a.png", "b.png"]


def test_hidden_files_and_class_names_are_ignored(yolo: YoloFolder) -> None:
    (yolo.images / "._a.png").write_bytes(b"not an image")
    (yolo.labels / "._a.txt").write_bytes(b"not a label")
    (yolo.labels / "classes.txt").write_text("person\n")
    assert len(yolo.read().content["images"]) == 2


def remove_image(yolo: YoloFolder) -> None:
    (yolo.images / "b.png").unlink()


def change_suffix(yolo: YoloFolder) -> None:
    (yolo.images / "b.png").rename(yolo.images / "b.gif")


def add_same_stem(yolo: YoloFolder) -> None:
    save_image(yolo.images / "b.bmp")


def damage_image(yolo: YoloFolder) -> None:
    (yolo.images / "b.png").write_bytes(b"damaged")


def list_missing_image(yolo: YoloFolder) -> None:
    (yolo.root / "train.txt").write_text("./images/train/a.png\n./images/train/c.png\n")
    yolo.write(train="train.txt")


def list_other_file(yolo: YoloFolder) -> None:
    (yolo.root / "train.txt").write_text("./images/train/a.png\n./labels/train/a.txt\n")
    yolo.write(train="train.txt")


def remove_images(yolo: YoloFolder) -> None:
    for path in (*yolo.images.iterdir(), *yolo.labels.iterdir()):
        path.unlink()


def remove_labels(yolo: YoloFolder) -> None:
    for path in yolo.labels.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (remove_image, r"without an image.*labels/train/b\.txt.*found none"),
        (change_suffix, r"without an image.*labels/train/b\.txt.*found b\.gif"),
        (add_same_stem, r"same label file.*b\.txt.*b\.bmp, b\.png"),
        (damage_image, r"unreadable image.*b\.png"),
        (list_missing_image, r"missing image.*train\.txt:2.*c\.png"),
        (list_other_file, r"unknown suffix.*train\.txt:2.*a\.txt"),
        (remove_images, "no image in .*images/train"),
        (remove_labels, r"no label file.*labels/train/a\.txt"),
    ],
)
def test_invalid_files_are_reported(yolo: YoloFolder, change: Callable[[YoloFolder], None], text: str) -> None:
    change(yolo)
    with pytest.raises(YoloFileError, match=f"(?s){text}"):
        yolo.read()


# ---- To YOLO


def labels_of(out: Path, split: str = "train") -> dict[str, list[list[float]]]:
    """The lines of each label file of a split."""
    root = out / "labels" / split
    return {
        path.relative_to(root).as_posix(): [[*map(float, line.split())] for line in path.read_text().splitlines()]
        for path in sorted(root.rglob("*.txt"))
    }


def test_written_dataset_has_the_documented_layout(coco_folder: CocoFolder, tmp_path: Path) -> None:
    out = tmp_path / "yolo"
    written = write_yolo(coco_folder.annotations, out, coco_folder.images)
    labels = labels_of(out)
    assert {name: len(lines) for name, lines in labels.items()} == {
        "a.txt": 2,
        "empty.txt": 0,
        "sub/b.txt": 1,
        "ünï ✓.txt": 1,
    }
    assert labels["a.txt"][0][:8] == pytest.approx([0, 20.5 / 64, 20.25 / 48, 20 / 64, 30 / 48, 20 / 64, 10 / 48, 2])
    assert {len(line) for lines in labels.values() for line in lines} == {56}
    assert written.left_out["crowd"] == 1
    assert (written.num_images, written.num_persons) == (4, 4)
    links = sorted(path for path in (out / "images").rglob("*") if path.is_file())
    assert all(path.is_symlink() for path in links)
    assert [path.read_bytes() for path in links] == [
        (coco_folder.images / path.relative_to(out / "images/train")).read_bytes() for path in links
    ]
    assert len(links) == 4
    assert sorted(path.name for path in out.iterdir()) == ["data.yaml", "images", "labels"]
    assert yaml.safe_load((out / "data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/val",
        "kpt_shape": [17, 3],
        "flip_idx": COCO_FLIP,
        "names": {0: "person"},
        "kpt_names": {0: list(COCO17.keypoints)},
    }


def test_copied_images_are_files(coco_folder: CocoFolder, tmp_path: Path) -> None:
    write_yolo(coco_folder.annotations, tmp_path / "yolo", coco_folder.images, copy=True)
    path = tmp_path / "yolo/images/train/sub/b.jpg"
    assert not path.is_symlink()
    assert path.read_bytes() == (coco_folder.images / "sub/b.jpg").read_bytes()


def test_labels_are_written_without_an_image_folder(coco_folder: CocoFolder, tmp_path: Path) -> None:
    write_yolo(coco_folder.annotations, tmp_path / "labels", split="val")
    write_yolo(coco_folder.annotations, tmp_path / "all", coco_folder.images, split="val")
    assert labels_of(tmp_path / "labels", "val") == labels_of(tmp_path / "all", "val")
    assert list((tmp_path / "labels/images/val").iterdir()) == []


def test_folder_called_images_in_a_file_name(coco_folder: CocoFolder, tmp_path: Path) -> None:
    (coco_folder.images / "sub").rename(coco_folder.images / "images")
    coco_folder.content["images"][1]["file_name"] = "images/b.jpg"
    coco_folder.write()
    write_yolo(coco_folder.annotations, tmp_path / "yolo", coco_folder.images)
    names = {record["id"]: record["file_name"] for record in read_yolo(tmp_path / "yolo").content["images"]}
    counts = dict.fromkeys(names.values(), 0)
    for annotation in read_yolo(tmp_path / "yolo").content["annotations"]:
        counts[names[annotation["image_id"]]] += 1
    assert counts == {"a.jpg": 2, "empty.jpg": 0, "images/b.jpg": 1, "ünï ✓.jpg": 1}
    for path in sorted((tmp_path / "yolo/images").rglob("*.jpg")):
        before, after = str(path).rsplit("/images/", 1)  # the rule of YOLO trainers
        assert Path(f"{before}/labels/{after.rsplit('.', 1)[0]}.txt").is_file()


def test_keypoints_and_boxes_outside_the_image(coco_folder: CocoFolder, tmp_path: Path) -> None:
    first, second, *_, unlabeled = coco_folder.content["annotations"]
    first["keypoints"][:9] = [64.5, 48, 2, 66, 10, 2, -1, -0.5, 1]  # the image has 64 x 48 pixels
    first["bbox"] = [50.0, 40.0, 20.0, 20.0]
    second["bbox"] = [40.0, -10.0, 40.0, 30.0]
    unlabeled["bbox"] = [0, 0, 10, 0]
    coco_folder.write()
    written = write_yolo(coco_folder.annotations, tmp_path / "yolo", coco_folder.images)
    lines = labels_of(tmp_path / "yolo")
    one, two = lines["a.txt"]
    assert one[1:5] == pytest.approx([57 / 64, 44 / 48, 14 / 64, 8 / 48])
    assert one[5:14] == [1, 1, 2, 0, 0, 0, 0, 0, 1]
    assert two[1:5] == pytest.approx([60 / 64, 5 / 48, 40 / 64, 30 / 48])
    assert lines["ünï ✓.txt"] == []
    assert written.left_out["keypoints outside their image"] == 1
    assert written.left_out["persons whose box is empty or outside the image"] == 1
    assert written.changed == {"boxes clipped to the image": 1, "keypoints moved to the image border": 2}
    for values in lines.values():
        assert all(0 <= value <= 1 for line in values for value in line[:5])


def test_images_without_labeled_persons_may_be_missing(coco_folder: CocoFolder, tmp_path: Path) -> None:
    (coco_folder.images / "empty.jpg").unlink()
    written = write_yolo(coco_folder.annotations, tmp_path / "yolo", coco_folder.images)
    assert "empty.txt" not in labels_of(tmp_path / "yolo")
    assert sum(count for reason, count in written.left_out.items() if "missing" in reason) == 1


def test_annotations_of_other_categories_are_left_out(coco_folder: CocoFolder, tmp_path: Path) -> None:
    coco_folder.content["categories"].append({"id": 2, "name": "dog"})
    coco_folder.content["annotations"].append(person(9, 10, category_id=2))
    coco_folder.write()
    written = write_yolo(coco_folder.annotations, tmp_path / "yolo", coco_folder.images)
    assert written.left_out["annotations of other categories"] == 1
    assert written.num_persons == 4


@pytest.mark.parametrize(("extra", "flip"), [({}, None), ({"flip_pairs": []}, list(range(17)))])
def test_unknown_flip_pairs_are_not_written(
    coco_folder: CocoFolder, tmp_path: Path, extra: dict[str, Any], flip: list[int] | None
) -> None:
    names = [f"point {index}" for index in range(17)]
    coco_folder.content["categories"] = [{"id": 1, "name": "thing", "keypoints": names, "sigmas": [0.1] * 17, **extra}]
    coco_folder.write()
    write_yolo(coco_folder.annotations, tmp_path / "yolo")
    record = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert (record["names"], record["kpt_names"]) == ({0: "thing"}, {0: names})
    assert record.get("flip_idx") == flip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.png", r"same label file.*a\.jpg.*a\.png"),
        ("b.gif", r"unknown suffix.*b\.gif"),
        ("../b.jpg", r"outside the image folder.*\.\./b\.jpg"),
        ("/b.jpg", r"outside the image folder.*/b\.jpg"),
        (".", "unknown suffix"),
    ],
)
def test_unusable_file_names_raise(coco_folder: CocoFolder, tmp_path: Path, name: str, text: str) -> None:
    coco_folder.content["images"][3]["file_name"] = name
    coco_folder.write()
    with pytest.raises(CocoFileError, match=text):
        write_yolo(coco_folder.annotations, tmp_path / "yolo")
    assert not (tmp_path / "yolo").exists()


def test_invalid_annotations_and_missing_images_raise(coco_folder: CocoFolder, tmp_path: Path) -> None:
    (coco_folder.images / "a.jpg").unlink()
    with pytest.raises(CocoFileError, match=r"a\.jpg"):
        write_yolo(coco_folder.annotations, tmp_path / "yolo", coco_folder.images)
    coco_folder.content["annotations"][0]["bbox"] = [1, 2, 3]
    coco_folder.write()
    with pytest.raises(CocoFileError, match="bbox"):
        write_yolo(coco_folder.annotations, tmp_path / "yolo")
    with pytest.raises(ValueError, match="'test'"):
        write_yolo(coco_folder.annotations, tmp_path / "yolo", split="test")
    assert not (tmp_path / "yolo").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_split_is_added_and_existing_files_are_kept(coco_folder: CocoFolder, tmp_path: Path) -> None:
    out = tmp_path / "yolo"
    out.mkdir()
    write_yolo(coco_folder.annotations, out, coco_folder.images, "train")
    before = contents(out)
    with pytest.raises(FileExistsError, match="train"):
        write_yolo(coco_folder.annotations, out, coco_folder.images, "train")
    assert contents(out) == before
    write_yolo(coco_folder.annotations, out, coco_folder.images, "val")
    assert labels_of(out, "val") == labels_of(out, "train")
    assert before.items() <= contents(out).items()


def test_other_split_must_have_the_same_keypoints(coco_folder: CocoFolder, tmp_path: Path) -> None:
    out = tmp_path / "yolo"
    write_yolo(coco_folder.annotations, out, coco_folder.images, "train")
    coco_folder.content["categories"][0]["keypoints"][0] = "beak"
    coco_folder.write()
    with pytest.raises(YoloFileError, match="kpt_names"):
        write_yolo(coco_folder.annotations, out, coco_folder.images, "val")
    (out / "data.yaml").write_text("a: [")
    with pytest.raises(YoloFileError, match=r"data\.yaml"):
        write_yolo(coco_folder.annotations, out, coco_folder.images, "val")


def test_folder_with_other_files_and_file_are_not_overwritten(coco_folder: CocoFolder, tmp_path: Path) -> None:
    for name in ("folder/file", "file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match=name.split("/")[0]):
            write_yolo(coco_folder.annotations, tmp_path / name.split("/")[0])
        assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("exists", [True, False])
def test_failure_leaves_nothing(
    coco_folder: CocoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    out = tmp_path / "yolo"
    if exists:
        write_yolo(coco_folder.annotations, out, coco_folder.images, "val")
    before = contents(out)
    links = []
    symlink_to = Path.symlink_to

    def fail_to_link(path: Path, target: str) -> None:
        links.append(path)
        if len(links) == 3:
            raise OSError(1, "not permitted")
        symlink_to(path, target)

    monkeypatch.setattr(Path, "symlink_to", fail_to_link)
    with pytest.raises(OSError, match="--copy"):
        write_yolo(coco_folder.annotations, out, coco_folder.images)
    assert contents(out) == before
    assert out.exists() == exists


def test_content_is_not_changed(coco_folder: CocoFolder, tmp_path: Path) -> None:
    before = copy.deepcopy(coco_folder.content)
    write_yolo(coco_folder.content, tmp_path / "yolo", coco_folder.images)
    assert coco_folder.content == before
