"""Made persons, written in the format of a tool and imported, have the same keypoints, boxes and names."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from posedy.cli.main import main
from posedy.data.check import check_coco
from posedy.data.conversion import ConvertedFile
from posedy.data.imports import detect_format, read_export, to_coco
from posedy.data.imports.to_coco import BOX_MARGIN, MIN_BOX_MARGIN
from posedy.skeleton import COCO17

from .writers import (
    EXAMPLE,
    LIMBS,
    NAMES,
    MadeImage,
    MadePerson,
    csv_rows,
    deeplabcut_rows,
    write_cvat,
    write_images,
    write_label_studio,
    write_labelme,
    write_rows,
)

REPOSITORY = Path(__file__).parents[3]
Writer = Callable[[Path, Sequence[MadeImage]], Path]
WRITERS: dict[str, Writer] = {
    "cvat": lambda folder, images: write_cvat(folder / "annotations.xml", images),
    "label-studio": lambda folder, images: write_label_studio(folder / "export.json", images),
    "labelme": lambda folder, images: write_labelme(folder / "labels", images),
    "deeplabcut": lambda folder, images: write_rows(folder / "CollectedData_me.csv", deeplabcut_rows(images, 3)),
    "csv": lambda folder, images: write_rows(folder / "table.csv", csv_rows(images)),
}
COCO_WRITERS = {name: WRITERS[name] for name in ("label-studio", "labelme")}
# DeepLabCut has no occluded keypoints; it and CSV files have no boxes.
WITHOUT_VISIBILITY, WITHOUT_BOXES = ("deeplabcut",), ("deeplabcut", "csv")


@st.composite
def made_person(draw: DrawFn, size: tuple[int, int], has_box: bool, visibilities: Sequence[int]) -> MadePerson:
    x, y = (st.floats(0.0, side, allow_subnormal=False) for side in size)
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, unique=True))
    keypoints = {name: (draw(x), draw(y), draw(st.sampled_from(visibilities))) for name in names}
    if not has_box or draw(st.booleans()):
        return MadePerson(keypoints)
    low = [draw(st.floats(0.0, side - 2.0, allow_subnormal=False)) for side in size]
    high = [draw(st.floats(first + 1.0, side)) for first, side in zip(low, size, strict=True)]
    return MadePerson(keypoints, (low[0], low[1], high[0], high[1]))


def made_images(format: str) -> SearchStrategy[list[MadeImage]]:
    visibilities = (2,) if format in WITHOUT_VISIBILITY else (1, 2)

    @st.composite
    def image(draw: DrawFn, name: str) -> MadeImage:
        size = draw(st.tuples(st.integers(20, 300), st.integers(20, 300)))
        person = made_person(size, format not in WITHOUT_BOXES, visibilities)
        return MadeImage(name, size, tuple(draw(st.lists(person, min_size=1, max_size=3))))

    return st.tuples(image("a.png"), image("b.png")).map(list)


def convert(source: Path, folder: Path, **options: object) -> ConvertedFile:
    imported = read_export(source, detect_format(source))
    return to_coco(imported, folder, **options)  # type: ignore[arg-type]


def assert_same(converted: ConvertedFile, images: Sequence[MadeImage], names: Sequence[str] = NAMES) -> None:
    content = converted.content
    assert [(image["file_name"], image["width"], image["height"]) for image in content["images"]] == [
        (image.name, *image.size) for image in images
    ]
    (category,) = content["categories"]
    assert tuple(category["keypoints"]) == tuple(names)
    persons = [(number, image, person) for number, image in enumerate(images, 1) for person in image.persons]
    assert [record["image_id"] for record in content["annotations"]] == [number for number, _, _ in persons]
    for record, (_, image, person) in zip(content["annotations"], persons, strict=True):
        expected = np.array([person.keypoints.get(name, (0, 0, 0)) for name in names], dtype=np.float64)
        np.testing.assert_allclose(np.reshape(record["keypoints"], (-1, 3)), expected, rtol=0, atol=1e-6)
        assert record["num_keypoints"] == len(person.keypoints)
        x, y, width, height = record["bbox"]
        assert record["area"] == width * height
        if person.box is not None:
            np.testing.assert_allclose([x, y, x + width, y + height], person.box, rtol=0, atol=1e-6)
            continue
        points = expected[expected[:, 2] > 0, :2]
        margin = max(BOX_MARGIN * np.ptp(points, axis=0).max(), MIN_BOX_MARGIN * max(image.size))
        low, high = np.maximum(points.min(axis=0) - margin, 0), np.minimum(points.max(axis=0) + margin, image.size)
        np.testing.assert_allclose([x, y, x + width, y + height], [*low, *high], rtol=0, atol=1e-6)


@pytest.mark.parametrize("format", WRITERS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_made_persons_are_imported_as_they_are(format: str, data: st.DataObject) -> None:
    images = data.draw(made_images(format))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_images(folder / "images", images)
        source = WRITERS[format](folder, images)
        assert detect_format(source) == format
        converted = convert(source, files, keypoints=NAMES)
    if format in ("label-studio", "labelme"):  # persons with boxes come first
        images = [replace(image, persons=sorted(image.persons, key=lambda person: not person.box)) for image in images]
    assert_same(converted, images)


@pytest.mark.parametrize("format", WRITERS)
def test_command_writes_a_file_that_passes_the_check(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", EXAMPLE)
    source, out = WRITERS[format](tmp_path, EXAMPLE), tmp_path / "train.json"
    command = ["convert", str(source), "--to", "coco", "--images", str(images), "--out", str(out)]
    assert main([*command, "--from", format, "--keypoints", ",".join(NAMES)]) == 0
    printed = capsys.readouterr().out
    assert f"next: posedy check {out} --images {images}\n" in printed
    assert "2 images, 3 persons with keypoints on 2 of them" in printed
    report = check_coco(out, images, decode=True)
    assert report.ok
    assert {issue.kind for issue in report.warnings} <= {"skeleton without sigmas"}
    assert report.flip_pairs == (("left_wing", "right_wing"),)
    assert main(command) == 1  # nothing is overwritten
    assert str(out) in capsys.readouterr().err


@pytest.mark.parametrize("format", ["cvat", "label-studio", "labelme"])
def test_persons_of_coco_are_imported_as_they_are(format: str, tmp_path: Path) -> None:
    root, names = REPOSITORY / "data/coco_mini", COCO17.keypoints
    content = json.loads((root / "annotations/person_keypoints_val2017.json").read_text())
    persons: dict[int, list[MadePerson]] = {image["id"]: [] for image in content["images"]}
    for record in content["annotations"]:
        x, y, width, height = record["bbox"]
        values = zip(names, np.reshape(record["keypoints"], (-1, 3)).tolist(), strict=True)
        keypoints = {name: (float(a), float(b), int(v)) for name, (a, b, v) in values if v}
        if not record["iscrowd"]:
            persons[record["image_id"]].append(MadePerson(keypoints, (x, y, x + width, y + height)))
    images = [
        MadeImage(image["file_name"], (image["width"], image["height"]), persons[image["id"]])
        for image in content["images"]
        if format != "label-studio" or persons[image["id"]]  # its tasks have no size without regions
    ]
    write = {"cvat": lambda folder, made: write_cvat(folder / "annotations.xml", made, names), **COCO_WRITERS}[format]
    converted = convert(write(tmp_path, images), root / "val2017")
    assert_same(converted, images, names)
    path = tmp_path / "out.json"
    path.write_text(json.dumps(converted.content))
    report = check_coco(path, root / "val2017")
    assert (report.ok, report.warnings) == (True, ())


def test_limbs_of_cvat_are_kept(tmp_path: Path) -> None:
    source = write_cvat(tmp_path / "annotations.xml", EXAMPLE)
    content = convert(source, write_images(tmp_path / "images", EXAMPLE)).content
    expected = [[NAMES.index(a) + 1, NAMES.index(b) + 1] for a, b in LIMBS]
    assert content["categories"][0]["skeleton"] == expected
    json.dumps(content)
