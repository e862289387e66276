"""DeepLabCut's CSV files and plain ones: layouts of the header, projects, and invalid files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from posedy.data.conversion import ConvertedFile
from posedy.data.imports import ImportFileError, detect_format, read_export, to_coco

from .writers import EXAMPLE, NAMES, csv_rows, deeplabcut_rows, write_images, write_rows


def convert(source: Path, images: Path | None = None, **options: Any) -> ConvertedFile:
    return to_coco(read_export(source, detect_format(source)), images, **options)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of DeepLabCut with the images of a video."""
    write_images(tmp_path / "labeled-data/video", EXAMPLE)
    (tmp_path / "config.yaml").write_text("Task: birds\n")
    return tmp_path


def write_labels(project: Path, rows: Sequence[Sequence[str]]) -> Path:
    return write_rows(project / "labeled-data/video/CollectedData_me.csv", rows)


@pytest.mark.parametrize("index_columns", [1, 3])
@pytest.mark.parametrize("num_individuals", [None, 2])
def test_layouts_of_the_header(num_individuals: int | None, index_columns: int, project: Path) -> None:
    path = write_labels(project, deeplabcut_rows(EXAMPLE, num_individuals, index_columns))
    converted = convert(path)
    assert converted.image_dir == project
    content = converted.content
    assert [image["file_name"] for image in content["images"]] == [f"labeled-data/video/{x}.jpg" for x in "ab"]
    assert content["categories"][0]["keypoints"] == list(NAMES)
    keypoints = [annotation["keypoints"] for annotation in content["annotations"]]
    first, second, third = [40.5, 30.25, 2, 60, 50, 2, 20, 50, 2], [120, 70, 2, 140, 90, 2, 0, 0, 0], [50, 60, 2]
    assert keypoints == [first, *([second] if num_individuals else []), [*third, 0, 0, 0, 30, 80, 2]]
    for source in (project, path.parent):
        assert detect_format(source) == "deeplabcut"
        assert convert(source).content == content
    names = [image["file_name"] for image in convert(path, path.parent).content["images"]]
    assert names == ["a.jpg", "b.jpg"]


def test_backups_of_a_converted_project_are_not_read(project: Path) -> None:
    """The names are those of DeepLabCut 3.0.2, which keeps the old file when it converts a project (convert2_maDLC)."""
    folder = project / "labeled-data/video"
    expected = convert(write_labels(project, deeplabcut_rows(EXAMPLE, 2, 3))).content
    write_rows(folder / "CollectedData_mesingleanimal.csv", deeplabcut_rows(EXAMPLE, None, 3))
    assert convert(project).content == expected
    assert convert(folder).content == expected
    (folder / "CollectedData_me.csv").unlink()  # a file of a scorer with such a name is read
    assert len(convert(project).content["annotations"]) == 2


def test_windows_separators_and_a_byte_order_mark(project: Path) -> None:
    path = write_labels(project, deeplabcut_rows(EXAMPLE))
    expected = convert(path).content
    text = path.read_text().replace("labeled-data/video/", "labeled-data\\video\\")
    path.write_text(text, encoding="utf-8-sig")
    assert convert(path).content == expected


def test_unique_bodyparts_are_another_label(project: Path) -> None:
    rows = deeplabcut_rows(EXAMPLE)
    for row, cells in zip(
        rows, [["me"] * 2, ["single"] * 2, ["nest"] * 2, ["x", "y"], ["5", "6"], ["", ""]], strict=True
    ):
        row += cells
    converted = convert(write_labels(project, rows))
    assert converted.content["categories"][0]["keypoints"] == list(NAMES)
    assert converted.left_out["of other labels"] == 1
    content = convert(write_labels(project, rows), label="single").content
    assert [annotation["keypoints"] for annotation in content["annotations"]] == [[5, 6, 2]]


@pytest.mark.parametrize(
    ("row", "column", "value", "text"),
    [
        (4, 1, "nan", "CollectedData_me.csv:5 (a.jpg), individual1: nose"),
        (4, 1, "", "CollectedData_me.csv:5 (a.jpg), individual1: nose"),
        (4, 1, "abc", "'abc'"),
        (4, 1, "1000", "x 1000"),
        (4, 0, "17", "CollectedData_me.csv:5 (17)"),
        (3, 1, "z", "column 2"),
        (3, 2, "x", "column 3"),
        (3, 2, "likelihood", "predictions"),
        (2, 1, "beak", "beak"),
        (1, 1, "individual9", "individual9"),
        (2, 0, "parts", "bodyparts"),
        (0, 0, "scorers", "scorers"),
    ],
)
def test_an_error_names_the_file_and_the_line(row: int, column: int, value: str, text: str, project: Path) -> None:
    rows = deeplabcut_rows(EXAMPLE)
    rows[row][column] = value
    path = write_labels(project, rows)
    with pytest.raises(ImportFileError) as caught:
        to_coco(read_export(path, "deeplabcut"))
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_images_are_errors(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_labels(project, deeplabcut_rows(EXAMPLE))
    (project / "labeled-data/video/b.jpg").unlink()
    with pytest.raises(ImportFileError, match=r"without a size.*:6 \(b\.jpg\)"):
        convert(path)
    with pytest.raises(ImportFileError, match=r"missing image.*:5 \(a\.jpg\)"):
        convert(path, tmp_path_factory.mktemp("empty"))


def test_folders_and_files_without_labels_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="CollectedData"):
        read_export(tmp_path, "deeplabcut")
    path = write_rows(tmp_path / "CollectedData_me.csv", deeplabcut_rows([]))
    with pytest.raises(ImportFileError, match="no row"):
        read_export(path, "deeplabcut")
    write_rows(tmp_path / "CollectedData_you.csv", deeplabcut_rows(EXAMPLE, names=NAMES[:2]))
    write_rows(path, deeplabcut_rows(EXAMPLE))
    with pytest.raises(ImportFileError, match="CollectedData_you"):
        read_export(tmp_path, "deeplabcut")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_export(tmp_path / "nowhere.csv", "deeplabcut")


# ---- plain CSV


def test_person_and_visibility_are_optional(tmp_path: Path) -> None:
    write_images(tmp_path, EXAMPLE)
    rows = [["image", "nose_x", "nose_y", "left_wing_x", "left_wing_y"], ["a.jpg", "1", "2", "3.5", "4"]]
    rows += [["a.jpg", "5", "6", "", ""], ["b.jpg", "", "", "", ""], []]
    converted = convert(write_rows(tmp_path / "table.csv", rows))
    content = converted.content
    assert [len(content[key]) for key in ("images", "annotations")] == [2, 2]
    assert [annotation["keypoints"] for annotation in content["annotations"]] == [
        [1, 2, 2, 3.5, 4, 2],
        [5, 6, 2, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("row", "column", "value", "text"),
    [
        (0, 0, "frame", "'frame'"),
        (0, 2, "nose", "'nose'"),
        (0, 2, "nose_y", "nose_y"),
        (0, 2, "beak_x", "beak"),
        (1, 2, "NaN", "line 2 (a.jpg): nose"),
        (1, 2, "", "line 2 (a.jpg): nose"),
        (1, 4, "3", "v '3'"),
        (1, 2, "-20", "x -20"),
        (1, 0, "", "line 2"),
        (2, 1, "0", "line 2"),
        (1, 0, "c.jpg", "c.jpg"),
    ],
)
def test_an_error_of_a_table_names_the_line(row: int, column: int, value: str, text: str, tmp_path: Path) -> None:
    write_images(tmp_path, EXAMPLE)
    rows = csv_rows(EXAMPLE)
    rows[row][column] = value
    path = write_rows(tmp_path / "table.csv", rows)
    with pytest.raises(ImportFileError) as caught:
        convert(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"image;nose_x;nose_y\na.jpg;1;2\n", b"\xff\xfe\x00", b"image,nose_x,nose_y\n"]
)
def test_other_files_give_one_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ImportFileError, match=r"table\.csv"):
        convert(path)
