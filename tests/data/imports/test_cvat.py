"""CVAT for images 1.1: shapes outside of skeletons, zip files, and invalid files."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from posedy.data.conversion import ConvertedFile
from posedy.data.imports import ImportFileError, cvat, read_export, to_coco
from posedy.data.imports.cvat import read_cvat

from .writers import EXAMPLE, NAMES, cvat_document, cvat_labels, write_cvat, write_images

IMAGE = '<image id="7" name="a.jpg" width="160" height="120">{}</image>'
SKELETON = '<skeleton label="person"><points label="nose" outside="0" occluded="0" points="{}"></points></skeleton>'


def convert(folder: Path, body: str, labels: str = "", **options: object) -> ConvertedFile:
    path = folder / "annotations.xml"
    path.write_text(cvat_document(body, labels), encoding="utf-8")
    names = options.get("keypoints")
    return to_coco(read_export(path, "cvat", names), **options)  # type: ignore[arg-type]


def keypoints_of(converted: ConvertedFile) -> list[list[float]]:
    return [record["keypoints"] for record in converted.content["annotations"]]


def test_points_with_a_group_are_a_person(tmp_path: Path) -> None:
    shapes = "".join(
        f'<points label="{label}" occluded="{v}" points="{x},{y}" group_id="{group}"></points>'
        for group, label, x, y, v in ((1, "nose", 10, 20, 0), (2, "nose", 90, 30, 0), (1, "tail", 30, 40, 1))
    )
    box = '<box label="dog" occluded="0" xtl="80" ytl="20" xbr="120" ybr="60" group_id="2"></box>'
    converted = convert(tmp_path, IMAGE.format(shapes + box), label="dog")
    assert converted.content["categories"][0]["keypoints"] == ["nose", "tail"]
    assert sorted(keypoints_of(converted)) == [[10, 20, 2, 30, 40, 1], [90, 30, 2, 0, 0, 0]]
    assert [80, 20, 40, 40] in [record["bbox"] for record in converted.content["annotations"]]


def test_a_shape_with_several_points_has_the_given_names(tmp_path: Path) -> None:
    shape = '<points label="dog" occluded="0" points="10.00,20.00;30.00,40.50"></points><polygon label="dog"></polygon>'
    converted = convert(tmp_path, IMAGE.format(shape), keypoints=["head", "tail"])
    assert converted.content["categories"][0]["name"] == "dog"
    assert keypoints_of(converted) == [[10, 20, 2, 30, 40.5, 2]]
    assert converted.left_out["<polygon>"] == 1
    with pytest.raises(ImportFileError, match="--keypoints"):
        convert(tmp_path, IMAGE.format(shape))


def test_shapes_of_other_labels_need_no_names(tmp_path: Path) -> None:
    person = '<points label="person" occluded="0" points="10.00,20.00;30.00,40.50"></points>'
    corners = '<points label="corners" occluded="0" points="1.00,2.00;3.00,4.00;5.00,6.00"></points>'
    converted = convert(tmp_path, IMAGE.format(person + corners), label="person", keypoints=["head", "tail"])
    assert keypoints_of(converted) == [[10, 20, 2, 30, 40.5, 2]]
    assert converted.left_out["of other labels"] == 1
    converted = convert(tmp_path, IMAGE.format(SKELETON.format("10.00,20.00") + corners), cvat_labels())
    assert len(keypoints_of(converted)) == 1
    assert converted.left_out["of other labels"] == 1


def test_points_of_datumaro_that_are_outside_are_not_labeled(tmp_path: Path) -> None:
    """The attributes are those that datumaro 1.13.12 writes: <points> have outside also without a skeleton."""
    rest = 'outside="{}" keyframe="0" points="{}" z_order="0" group_id="2">\n    </points>\n'
    box = (
        '<box label="person" occluded="0" outside="0" keyframe="0" xtl="100.00" ytl="60.00" xbr="150.00" ybr="110.00" '
        'z_order="0" group_id="2">\n    </box>\n'
    )
    shapes = [
        '<points label="nose" occluded="0" ' + rest.format(0, "120.00,70.00"),
        '<points label="left_wing" occluded="1" ' + rest.format(0, "140.00,90.00"),
        '<points label="right_wing" occluded="0" ' + rest.format(1, "0.00,0.00"),
    ]
    converted = convert(tmp_path, IMAGE.format(box + "".join(shapes)), keypoints=NAMES)
    assert keypoints_of(converted) == [[120, 70, 2, 140, 90, 1, 0, 0, 0]]
    assert converted.content["annotations"][0]["bbox"] == [100, 60, 50, 50]


def test_a_rotated_box_is_the_one_around_its_corners(tmp_path: Path) -> None:
    box = '<box label="dog" occluded="0" xtl="40" ytl="50" xbr="60" ybr="60" rotation="90" group_id="1"></box>'
    nose = '<points label="nose" occluded="0" points="50,50" group_id="1"></points>'
    (person,) = convert(tmp_path, IMAGE.format(box + nose)).content["annotations"]
    assert person["bbox"] == pytest.approx([45, 45, 10, 20])


def test_a_box_is_rotated_about_its_center(tmp_path: Path) -> None:
    box = '<box label="dog" occluded="0" xtl="40" ytl="50" xbr="60" ybr="60" rotation="30" group_id="1"></box>'
    nose = '<points label="nose" occluded="0" points="50,50" group_id="1"></points>'
    (person,) = convert(tmp_path, IMAGE.format(box + nose)).content["annotations"]
    # half of the 20 x 10 pixels: 10 cos + 5 sin and 10 sin + 5 cos, around (50, 55)
    half = np.array([10 * 0.75**0.5 + 5 * 0.5, 10 * 0.5 + 5 * 0.75**0.5])
    np.testing.assert_allclose(person["bbox"], [*([50, 55] - half), *(2 * half)], atol=0.01)


def test_images_of_a_project_are_in_the_folder_of_their_subset(tmp_path: Path) -> None:
    write_images(tmp_path / "images/train", EXAMPLE)
    path = write_cvat(tmp_path / "annotations.xml", EXAMPLE)
    path.write_text(path.read_text().replace("<image ", '<image subset="train" '))
    converted = to_coco(read_export(path, "cvat"))
    assert converted.image_dir == tmp_path / "images"
    assert [image["file_name"] for image in converted.content["images"]] == ["train/a.jpg", "train/b.jpg"]


def test_a_zip_file_and_a_folder_are_read_as_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_cvat(tmp_path / "annotations.xml", EXAMPLE)
    packed = tmp_path / "task.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "annotations.xml")
        archive.writestr("images/a.jpg", b"")
    expected = to_coco(read_export(path, "cvat")).content
    for source in (packed, tmp_path):
        assert to_coco(read_export(source, "cvat")).content == expected
    monkeypatch.setattr(cvat, "MAX_XML_BYTES", 1000)
    with pytest.raises(ImportFileError, match="unpack"):
        read_cvat(packed)


def test_skeletons_of_another_label_are_left_out(tmp_path: Path) -> None:
    dog = '<skeleton label="dog"><points label="snout" outside="0" occluded="0" points="5,5"></points></skeleton>'
    labels = cvat_labels() + cvat_labels("dog", ("snout",))
    converted = convert(tmp_path, IMAGE.format(SKELETON.format("1,2") + dog), labels)
    assert converted.content["categories"][0]["keypoints"] == list(NAMES)
    assert (len(keypoints_of(converted)), converted.left_out["of other labels"]) == (1, 1)
    converted = convert(tmp_path, IMAGE.format(SKELETON.format("1,2") + dog), labels, label="dog")
    assert keypoints_of(converted) == [[5, 5, 2]]
    with pytest.raises(ImportFileError, match="'dog'"):
        convert(tmp_path, IMAGE.format(SKELETON.format("1,2") + dog), labels, label="dgo")
    birds = IMAGE.format(dog + dog.replace('"dog"', '"bird"'))
    with pytest.raises(ImportFileError, match="dog, bird"):
        convert(tmp_path, birds, cvat_labels("dog", ("snout",)) + cvat_labels("bird", ("snout",)))


@pytest.mark.parametrize("prolog", ['<!DOCTYPE a [<!ENTITY b "{}">]>', '<!DOCTYPE a SYSTEM "file:///etc/passwd">'])
def test_document_types_are_rejected(prolog: str, tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(f'<?xml version="1.0"?>{prolog}<annotations>&b;</annotations>')
    with pytest.raises(ImportFileError, match="DTD") as caught:
        read_cvat(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (SKELETON.format("1,2").replace('"nose"', '"nose2"'), "nose2: expected one of nose, left_wing"),
        (SKELETON.format("nan,2"), "'nan'"),
        (SKELETON.format("inf,2"), "'inf'"),
        (SKELETON.format("1"), "'1'"),
        (SKELETON.format("1,2,3"), "'1,2,3'"),
        (SKELETON.format("1,2;3,4"), "got 2"),
        (SKELETON.format("500,2"), "x 500"),
        (SKELETON.format("1,-40"), "y -40"),
        (SKELETON.format("1,2").replace(" points=", " p="), "points"),
        (SKELETON.format("1,2").replace("</skeleton>", SKELETON.format("3,4").partition(">")[2]), "duplicate"),
        (SKELETON.format("1,2") + '<box label="person" xtl="5" ytl="5" xbr="5" ybr="9"></box>', "invalid box"),
        (SKELETON.format("1,2") + '<box label="person" xtl="5" ytl="5" xbr="x" ybr="9"></box>', "'x'"),
        (SKELETON.format("1,2") + '<box label="person" xtl="900" ytl="5" xbr="910" ybr="9"></box>', "outside"),
    ],
)
def test_an_error_names_the_file_the_image_and_the_shape(shapes: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFileError) as caught:
        convert(tmp_path, IMAGE.format(shapes), cvat_labels())
    message = str(caught.value)
    assert text in message
    assert str(tmp_path / "annotations.xml") in message
    assert "image 7 (a.jpg), <" in message
    assert message.count("error:") == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("no xml", "not an XML file"),
        ("", "not an XML file"),
        ("<annotations><image>", "not an XML file"),
        ("<annotation><filename>a.jpg</filename></annotation>", "<annotation>"),
        ("<annotations></annotations>", "no <image>"),
        ('<annotations><track id="0"></track></annotations>', "video"),
        (cvat_document(IMAGE.format("").replace('width="160"', 'width="a"')), "'a'"),
        (cvat_document(IMAGE.format("").replace('width="160"', 'width="1.5"')), "1.5"),
        (cvat_document(IMAGE.format("").replace("a.jpg", "")), "name"),
        (cvat_document(IMAGE.format(SKELETON.format("1,2")).replace('width="160"', "")), "image without a size"),
        (cvat_document(IMAGE.format("")), "no keypoints"),
    ],
)
def test_other_files_give_one_error(content: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(content)
    with pytest.raises(ImportFileError) as caught:
        to_coco(read_cvat(path))
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("names", [[], ["a/annotations.xml", "b/annotations.xml"], ["labels.json"]])
def test_a_zip_file_has_one_annotation_file(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "<annotations></annotations>")
    with pytest.raises(ImportFileError, match=r"expected one annotations\.xml"):
        read_cvat(path)


def test_damaged_and_missing_zip_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "task.zip"
    with pytest.raises(FileNotFoundError, match=r"task\.zip"):
        read_cvat(path)
    path.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ImportFileError, match=r"task\.zip"):
        read_cvat(path)
