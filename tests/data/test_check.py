import copy
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from posedy.data.check import check_coco
from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.issues import CocoFileError
from posedy.images import read_image
from posedy.skeleton import COCO17


def change(part, index, **values):
    """Creates a change of one record; the value ... removes the key."""

    def modify(content):
        record = content[part][index]
        record.update(values)
        for key in [key for key, value in record.items() if value is ...]:
            del record[key]

    return modify


def annotation(index, **values):
    return change("annotations", index, **values)


def image(index, **values):
    return change("images", index, **values)


def keypoint(index, position, value):
    def modify(content):
        content["annotations"][index]["keypoints"][position] = value

    return modify


def keep(part, *indices):
    def modify(content):
        content[part] = [content[part][index] for index in indices]

    return modify


def repeat(part, index, **values):
    def modify(content):
        content[part].append(content[part][index] | values)

    return modify


def both(*changes):
    def modify(content):
        for change in changes:
            change(content)

    return modify


NO_KEYPOINTS = {"keypoints": [0] * 51, "num_keypoints": 0}
INVALID = {
    "no images": (lambda c: c.pop("images"), "error", "missing or invalid top-level list", 1, ["'images' is missing"]),
    "annotations a dict": (
        lambda c: c.update(annotations={}),
        "error",
        "missing or invalid top-level list",
        1,
        ["'annotations' is {}"],
    ),
    "nothing": (
        lambda c: c.clear(),
        "error",
        "missing or invalid top-level list",
        3,
        ["'images'", "'annotations'", "'categories'"],
    ),
    "empty categories": (lambda c: c.update(categories=[]), "error", "no categories", 1, ["'categories' is empty"]),
    "instances": (change("categories", 0, keypoints=...), "error", "no category with keypoints", 1, ["'person'"]),
    "two skeletons": (
        repeat("categories", 0, id=2, name="dog"),
        "error",
        "several categories with keypoints",
        1,
        ["'person', 'dog'"],
    ),
    "category id": (change("categories", 0, id="1"), "error", "category without a valid id", 1, ["id '1'"]),
    "skeleton": (change("categories", 0, keypoints=["a", "a"]), "error", "invalid skeleton", 1, ["unique"]),
    "skeleton far": (change("categories", 0, flip_pairs=[[math.inf, 0]]), "error", "invalid skeleton", 1, ["Fix"]),
    "no sigmas": (
        change("categories", 0, keypoints=[f"k{i}" for i in range(17)], sigmas=...),
        "warning",
        "skeleton without sigmas",
        1,
        ["OKS"],
    ),
    "no right eye": (
        change("categories", 0, keypoints=[*COCO17.keypoints[:2], "eye", *COCO17.keypoints[3:]], flip_pairs=...),
        "warning",
        "left or right keypoint without a flip pair",
        1,
        ["left_eye"],
    ),
    "numbered": (
        change("categories", 0, keypoints=[*(f"face-{i}" for i in range(10)), *COCO17.keypoints[:7]], flip_pairs=...),
        "warning",
        "numbered keypoints without flip pairs",
        1,
        ["face-0 to face-9"],
    ),
    "pairs from 1": (
        change("categories", 0, flip_pairs=[[2, 3], [4, 5]]),
        "warning",
        "flip pair that contradicts the names",
        2,
        ["right_eye-left_ear", "right_ear-left_shoulder"],
    ),
    "limbs from 0": (change("categories", 0, skeleton=[[0, 1], [1, 3]]), "warning", "unusual limbs", 1, ["from 0"]),
    "limbs too far": (change("categories", 0, skeleton=[[0, 1], [1, 17]]), "warning", "unusual limbs", 1, ["got 0"]),
    "limbs of unknown names": (
        change("categories", 0, skeleton=[["nose", "left_ey"]]),
        "warning",
        "unusual limbs",
        1,
        ["left_ey", "from 1"],
    ),
    "file name twice": (
        image(3, file_name="./a.jpg"),
        "warning",
        "several images with one file_name",
        1,
        ["image 40 (./a.jpg)"],
    ),
    "no pairs": (
        change("categories", 0, keypoints=[f"k{i}" for i in range(17)], flip_pairs=...),
        "warning",
        "skeleton without flip pairs",
        1,
        ["k0", "flip_pairs"],
    ),
    "not an object": (lambda c: c["images"].append(7), "error", "entry of 'images'", 1, ["images[4] is 7"]),
    "short keypoints": (
        annotation(2, keypoints=[1, 2, 2]),
        "error",
        "invalid 'keypoints'",
        1,
        ["annotation 3 of sub/b.jpg: keypoints [1, 2, 2]", "51 numbers"],
    ),
    "keypoints of text": (keypoint(0, 4, "9"), "error", "invalid 'keypoints'", 1, ["annotation 1 of a.jpg"]),
    "no keypoints": (annotation(0, keypoints=...), "error", "missing 'keypoints'", 1, ["annotation 1", "no keypoints"]),
    "empty keypoints": (
        annotation(0, keypoints=[]),
        "error",
        "invalid 'keypoints'",
        1,
        ["annotation 1", "keypoints []"],
    ),
    "flag 3": (keypoint(0, 2, 3), "error", "visibility flag", 1, ["annotation 1 of a.jpg: nose x 20, y 10, v 3"]),
    "flag half": (keypoint(0, 5, 0.5), "error", "visibility flag", 1, ["left_eye x 22, y 9, v 0.5"]),
    "NaN": (keypoint(0, 0, math.nan), "error", "keypoint not finite", 1, ["annotation 1 of a.jpg: nose x nan, y 10"]),
    "infinity": (
        keypoint(2, 1, math.inf),
        "error",
        "keypoint not finite",
        1,
        ["annotation 3 of sub/b.jpg: nose x 20, y inf"],
    ),
    "huge": (keypoint(2, 1, 1e300), "error", "keypoint not finite", 1, ["y 1e+300"]),
    "far keypoint": (
        keypoint(2, 0, 120),
        "warning",
        "labeled keypoint far outside its image",
        1,
        ["annotation 3 of sub/b.jpg: nose x 120, y 10, v 2, image 64 x 48"],
    ),
    "flat box": (
        annotation(1, bbox=[3, 4, 5, 0]),
        "error",
        "box without area",
        1,
        ["annotation 2 of a.jpg: bbox [3.0, 4.0, 5.0, 0.0]"],
    ),
    "negative box": (annotation(1, bbox=[30, 4, -5, 9]), "error", "box without area", 1, ["annotation 2", "-5.0"]),
    "sliver below float32": (annotation(1, bbox=[30, 4, 1e-20, 9]), "error", "box without area", 1, ["annotation 2"]),
    "box off": (
        annotation(1, bbox=[64, 0, 10, 10]),
        "error",
        "box outside its image",
        1,
        ["annotation 2 of a.jpg: bbox [64.0, 0.0, 10.0, 10.0], image 64 x 48"],
    ),
    "box over": (
        annotation(1, bbox=[0, 0, 70, 48]),
        "warning",
        "box exceeds its image",
        1,
        ["annotation 2 of a.jpg: bbox [0.0, 0.0, 70.0, 48.0], image 64 x 48"],
    ),
    "no box": (annotation(1, bbox=...), "error", "missing 'bbox'", 1, ["annotation 2 of a.jpg: no bbox"]),
    "box of three": (annotation(1, bbox=[1, 2, 3]), "error", "invalid 'bbox'", 1, ["bbox [1, 2, 3]"]),
    "NaN box": (annotation(4, bbox=[1, 2, math.nan, 3]), "error", "invalid 'bbox'", 1, ["annotation 5"]),
    "no area": (annotation(0, area=...), "error", "missing 'area'", 1, ["annotation 1 of a.jpg: no area"]),
    "area of text": (annotation(0, area="300"), "error", "invalid 'area'", 1, ["area '300'"]),
    "area 0": (annotation(0, area=0), "error", "area not above 0", 1, ["annotation 1 of a.jpg: area 0", "OKS divides"]),
    "area NaN": (annotation(0, area=math.nan), "error", "area not above 0", 1, ["area nan"]),
    "iscrowd 2": (annotation(0, iscrowd=2), "error", "invalid 'iscrowd'", 1, ["iscrowd 2"]),
    "count of text": (annotation(0, num_keypoints="5"), "error", "invalid 'num_keypoints'", 1, ["num_keypoints '5'"]),
    "count": (
        annotation(0, num_keypoints=17),
        "warning",
        "wrong num_keypoints",
        1,
        ["annotation 1 of a.jpg: num_keypoints 17, 5 with v > 0"],
    ),
    "stray annotations": (
        keep("images", 1, 2, 3),
        "error",
        "annotation of an unlisted image",
        2,
        ["annotation 1: image_id 10", "annotation 2: image_id 10"],
    ),
    "image_id of text": (annotation(0, image_id="a"), "error", "invalid 'image_id'", 1, ["image_id 'a'"]),
    "no category_id": (
        annotation(0, category_id=...),
        "error",
        "annotation without a valid category_id",
        1,
        ["annotation 1"],
    ),
    "annotation id": (annotation(0, id=1.5), "error", "invalid 'id'", 1, ["id 1.5"]),
    "long id": (annotation(0, id=10**30), "error", "invalid 'id'", 1, ["annotation 1"]),
    "annotation id twice": (
        annotation(1, id=1),
        "error",
        "duplicate annotation id",
        1,
        ["annotation 1 of a.jpg"],
    ),
    "annotation id 0": (annotation(0, id=0), "warning", "annotation id 0", 1, ["annotation 0 of a.jpg", "from 1"]),
    "image id twice": (image(3, id=10), "error", "duplicate image id", 1, ["image 10 (empty.jpg)"]),
    "image id": (image(3, id=None), "error", "image without a valid id", 1, ["'empty.jpg': id None"]),
    "no width": (
        image(0, width=...),
        "error",
        "image without a valid width and height",
        1,
        ["image 10: no width, height 48"],
    ),
    "width 0": (image(0, width=0), "error", "image without a valid width and height", 1, ["width 0"]),
    "no file name": (
        image(0, file_name=...),
        "error",
        "image without a valid file_name",
        1,
        ["image 10: no file_name"],
    ),
    "surrogate": (image(0, file_name="\ud800"), "error", "image without a valid file_name", 1, ["image 10"]),
    "all crowd or unlabeled": (
        keep("annotations", 3, 4),
        "error",
        "no usable person",
        1,
        ["0 of 2 annotations kept, left out: 1 crowd, 1 no labeled keypoints"],
    ),
    "other category": (
        change("categories", 0, id=9),
        "error",
        "no usable person",
        1,
        ["0 of 5 annotations kept, left out: 5 of other categories", "category_id 9"],
    ),
    "no annotations": (keep("annotations"), "error", "no usable person", 1, ["0 of 0 annotations kept"]),
    "no images at all": (keep("images"), "error", "no usable person", 1, ["0 of 5 annotations", "5 with errors"]),
    "missing image": (image(1, file_name="c.jpg"), "error", "missing image", 1, ["image 20", "c.jpg", "Download"]),
    "missing image without persons": (
        image(3, file_name="c.jpg"),
        "warning",
        "missing image (without usable persons)",
        1,
        ["image 40", "c.jpg"],
    ),
    "folder as image": (image(0, file_name="sub"), "error", "unreadable image", 1, ["image 10", "sub"]),
    "another size": (
        image(0, width=48, height=64),
        "error",
        "wrong image size",
        1,
        ["a.jpg is 64 x 48, recorded 48 x 64"],
    ),
}


def issue_of(report, kind):
    issues = [issue for issue in report.issues if issue.kind.startswith(kind)]
    assert len(issues) == 1, report.format()
    return issues[0]


@pytest.mark.parametrize(("modify", "severity", "kind", "count", "texts"), INVALID.values(), ids=INVALID)
def test_invalid_file_gives_issue_with_count_and_examples(coco_folder, modify, severity, kind, count, texts):
    modify(coco_folder.content)
    coco_folder.write()
    report = check_coco(coco_folder.annotations, coco_folder.images)
    issue = issue_of(report, kind)
    assert (issue.severity, issue.count) == (severity, count)
    for text in texts:
        assert text in str(issue)
    assert str(issue) in report.format()
    if severity == "error":
        with pytest.raises(CocoFileError) as caught:
            read_coco(coco_folder.annotations, coco_folder.images)
        assert str(issue) in str(caught.value)
        assert str(coco_folder.annotations) in str(caught.value)
    else:
        assert report.ok
        assert read_coco(coco_folder.annotations, coco_folder.images).warnings == report.warnings == (issue,)


def test_omitted_values_are_counted_or_0(coco_folder):
    expected = read_coco(coco_folder.annotations, coco_folder.images)
    expected_gt = GroundTruth.from_coco(coco_folder.content)
    for record in coco_folder.content["annotations"]:
        del record["num_keypoints"]
        if not record["iscrowd"]:
            del record["iscrowd"]
        if not any(record["keypoints"]):
            record["keypoints"] = []
    coco_folder.write()
    persons = read_coco(coco_folder.annotations, coco_folder.images)
    assert persons.fingerprint == expected.fingerprint
    assert persons.left_out == expected.left_out == {"crowd": 1, "no labeled keypoints": 1}
    assert GroundTruth.from_coco(coco_folder.annotations).annotations == expected_gt.annotations


def test_evaluation_needs_the_box_of_a_crowd_and_no_unlabeled_pixels(coco_folder):
    expected = GroundTruth.from_coco(copy.deepcopy(coco_folder.content)).annotations
    labeled = coco_folder.content["annotations"][0]["keypoints"]
    labeled[15:17] = [math.nan, math.inf]
    assert GroundTruth.from_coco(coco_folder.content).annotations == expected
    annotation(3, bbox=...)(coco_folder.content)
    with pytest.raises(CocoFileError, match=r"crowd without a box \(1\): annotation 4 of"):
        GroundTruth.from_coco(coco_folder.content)


def test_windows_separators_are_accepted_unless_part_of_a_name(coco_folder):
    coco_folder.content["images"][1]["file_name"] = "sub\\b.jpg"
    coco_folder.content["images"][0]["file_name"] = "sub\\a.jpg"
    (coco_folder.images / "a.jpg").rename(coco_folder.images / "sub\\a.jpg")
    coco_folder.write()
    persons = read_coco(coco_folder.annotations, coco_folder.images)
    assert persons.warnings == ()
    assert persons.image_path(0) == coco_folder.images / "sub\\a.jpg"
    assert persons.image_path(1) == coco_folder.images / "sub/b.jpg"


def test_flip_pairs_are_printed(coco_folder):
    assert "flip pairs: left_eye-right_eye, left_ear-right_ear, " in check_coco(coco_folder.annotations).format()
    change("categories", 0, flip_pairs=[])(coco_folder.content)
    coco_folder.write()
    assert "flip pairs: none" in check_coco(coco_folder.annotations).format()


def test_valid_file_has_no_issues(coco_folder):
    report = check_coco(coco_folder.annotations, coco_folder.images, decode=True)
    assert report.ok
    assert report.issues == ()
    assert report.summary == (
        "persons.json: 4 images, 3 persons with keypoints on 2 of them; left out: 1 crowd, 1 no labeled keypoints"
    )


@pytest.mark.parametrize(
    "modify",
    [
        annotation(3, bbox=[0, 0, 0, 0], area=0),
        annotation(4, bbox=[99, 99, 9, 9], area=-1),
        annotation(3, bbox=..., area=...),
        keypoint(0, 15, math.nan),
        annotation(0, bbox=[-0.5, -0.9, 65, 49]),
        keypoint(0, 0, 68),
        annotation(0, extra={"a": [1]}, score="?"),
        repeat("annotations", 0, id=9, category_id=3, keypoints=None),
        image(0, width=64.0),
        repeat("categories", 0, id=3, name="chair", keypoints=[]),
        annotation(0, num_keypoints=...),
        annotation(0, num_keypoints=None, iscrowd=None),
        annotation(0, iscrowd=...),
        annotation(4, keypoints=...),
        annotation(4, keypoints=[], num_keypoints=...),
        annotation(3, keypoints=None, num_keypoints=None),
        change("categories", 0, skeleton=[["nose", "left_eye"]], flip_pairs=[["left_eye", "right_eye"]]),
        change("categories", 0, skeleton=...),
        image(3, file_name="sub/a.jpg"),
    ],
    ids=[
        "crowd",
        "unlabeled",
        "crowd without a box",
        "NaN of an unlabeled keypoint",
        "fraction outside",
        "slightly outside",
        "extra keys",
        "other category",
        "float width",
        "category without keypoints",
        "no num_keypoints",
        "null",
        "no iscrowd",
        "no keypoints",
        "empty keypoints",
        "crowd without keypoints",
        "limbs and pairs of names",
        "no limbs",
        "same name in another folder",
    ],
)
def test_harmless_deviations_give_no_issues(coco_folder, modify):
    modify(coco_folder.content)
    coco_folder.write()
    assert check_coco(coco_folder.annotations).issues == ()


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b"{", "not a JSON file", "line 1"),
        (b"", "not a JSON file", "persons.json"),
        (b"\xff\xfe\x00", "not a JSON file", "persons.json"),
        (b"[" * 100_000, "not a JSON file", "nested"),
        (b"[]", "not a COCO annotation file", "got a list"),
        (b"null", "not a COCO annotation file", "got a NoneType"),
    ],
)
def test_other_files_give_an_error(coco_folder, data, kind, text):
    coco_folder.annotations.write_bytes(data)
    assert text in str(issue_of(check_coco(coco_folder.annotations), kind))
    with pytest.raises(CocoFileError, match=kind):
        read_coco(coco_folder.annotations)


def test_missing_file_raises_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        check_coco(tmp_path / "none.json")


def test_missing_image_folder_gives_an_error(coco_folder, tmp_path):
    issue = issue_of(check_coco(coco_folder.annotations, tmp_path / "none"), "no image folder")
    assert "none" in str(issue)


def test_byte_order_mark_is_accepted(coco_folder):
    coco_folder.annotations.write_bytes(b"\xef\xbb\xbf" + coco_folder.annotations.read_bytes())
    assert check_coco(coco_folder.annotations).ok


def test_unreadable_images_give_an_error(coco_folder):
    (coco_folder.images / "a.jpg").write_bytes(b"")
    (coco_folder.images / "sub/b.jpg").write_bytes(b"not an image")
    issue = issue_of(check_coco(coco_folder.annotations, coco_folder.images), "unreadable image")
    assert (issue.severity, issue.count) == ("error", 2)
    assert "a.jpg" in str(issue)
    assert "image 20: " in str(issue)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("decode", [False, True])
def test_truncated_images_give_an_error_or_a_warning(coco_folder, kind, decode):
    for name in ("sub/b.jpg", "empty.jpg"):
        path = coco_folder.images / name
        Image.open(path).save(path, format=kind)
        path.write_bytes(path.read_bytes()[:-400])
    report = check_coco(coco_folder.annotations, coco_folder.images, decode=decode)
    errors, warnings = report.issues
    assert (errors.severity, errors.kind, errors.count) == ("error", "truncated image", 1)
    assert "b.jpg" in str(errors)
    assert (warnings.severity, warnings.kind) == ("warning", "truncated image (without usable persons)")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_trailing_bytes_are_accepted(coco_folder, kind):
    path = coco_folder.images / "a.jpg"
    Image.open(path).save(path, format=kind)
    for count in (7, 5000):
        path.write_bytes(path.read_bytes() + bytes(count))
        assert check_coco(coco_folder.annotations, coco_folder.images, decode=True).issues == ()


def test_only_decoding_detects_damage_inside(coco_folder):
    path = coco_folder.images / "sub/b.jpg"
    Image.open(path).save(path, format="PNG")
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes(400) + data[1400:])
    assert check_coco(coco_folder.annotations, coco_folder.images).ok
    assert issue_of(check_coco(coco_folder.annotations, coco_folder.images, decode=True), "unreadable image").count == 1


@pytest.mark.parametrize("kind", ["BMP", "GIF", "ICO", "JPEG", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP"])
def test_accepted_formats_are_those_of_read_image(coco_folder, kind):
    path = coco_folder.images / "a.jpg"
    Image.new("RGB", (64, 48)).save(path, format=kind)
    report = check_coco(coco_folder.annotations, coco_folder.images)
    try:
        read_image(path)
    except OSError:
        assert issue_of(report, "unreadable image").count == 1
    else:
        assert report.issues == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "orientation", "is_ambiguous"),
    [((64, 48), 1, False), ((64, 48), 6, False), ((64, 48), 2, True), ((64, 48), 3, True), ((48, 48), 6, True)],
)
def test_exif_orientation_that_keeps_the_size_gives_a_warning(coco_folder, kind, size, orientation, is_ambiguous):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index in (0, 3):  # the second one is without persons
        image(index, width=size[0], height=size[1])(coco_folder.content)
        name = coco_folder.content["images"][index]["file_name"]
        Image.new("RGB", size).save(coco_folder.images / name, format=kind, exif=exif)
    annotation(1, bbox=[0, 0, *size])(coco_folder.content)
    coco_folder.write()
    report = check_coco(coco_folder.annotations, coco_folder.images, decode=True)
    assert report.ok
    if is_ambiguous:
        issue = issue_of(report, "ambiguous EXIF orientation")
        assert issue.count == 1
        assert "a.jpg" in str(issue)
        assert f"orientation {orientation}" in str(issue)
    else:
        assert report.issues == ()


def test_size_of_the_upright_image_is_named(coco_folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 64)).save(coco_folder.images / "a.jpg", exif=exif)
    assert "EXIF orientation 6" in str(issue_of(check_coco(coco_folder.annotations, coco_folder.images), "wrong image"))


def test_issue_has_at_most_five_short_examples(coco_folder):
    for index in range(8):
        coco_folder.content["annotations"].append(
            coco_folder.content["annotations"][0] | {"id": 100 + index, "area": "x" * 9999}
        )
    coco_folder.write()
    issue = issue_of(check_coco(coco_folder.annotations), "invalid 'area'")
    assert (issue.count, len(issue.examples)) == (8, 5)
    assert "and 3 more" in str(issue)
    assert len(str(issue)) < 2000


def test_all_errors_are_listed(coco_folder):
    both(annotation(0, area=0), annotation(1, bbox=[0, 0, 0, 0]), image(3, id=10))(coco_folder.content)
    coco_folder.write()
    with pytest.raises(CocoFileError) as caught:
        read_coco(coco_folder.annotations)
    for kind in ("area not above 0", "box without area", "duplicate image id"):
        assert kind in str(caught.value)


def paths_in(value, path=()):
    """The paths of all values inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_in(part, (*path, key))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2, -1, 10, 20, 2**31, 2**63, 10**400, 1e300, -1e300, 1e38, "", "a.jpg", "\0", "\ud800"])
    | st.floats()
    | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.sampled_from(["id", "keypoints", "x"]), parts),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_content_is_valid_or_raises_coco_file_error(coco_folder, data):
    content = copy.deepcopy(coco_folder.content)
    for _ in range(data.draw(st.integers(1, 4))):
        # sampled by depth, so that the many keypoint values do not receive most of the changes
        options = sorted({path[:depth] for path in paths_in(content) for depth in (1, 2, 3, 4)} - {()}, key=repr)
        if not options:
            break
        *parents, key = data.draw(st.sampled_from(options))
        holder = content
        for parent in parents:
            holder = holder[parent]
        action = data.draw(st.sampled_from(["replace", "delete", "repeat"]))
        if action == "replace":
            holder[key] = data.draw(JSON_VALUES)
        elif action == "delete":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    coco_folder.annotations.write_text(json.dumps(content), encoding="utf-8")
    report = check_coco(coco_folder.annotations, coco_folder.images)
    assert str(report.annotations) in report.format()
    try:
        persons = read_coco(coco_folder.annotations, coco_folder.images)
    except CocoFileError:
        assert not report.ok
        return
    assert report.ok
    assert_invariants(persons)


def assert_invariants(persons: CocoPersons) -> None:
    assert len(persons) > 0
    assert len(np.unique(persons.image_ids)) == len(persons.image_ids)
    assert len(np.unique(persons.annotation_ids)) == len(persons)
    assert np.isfinite(persons.boxes).all()
    assert (persons.boxes[:, 2:] > persons.boxes[:, :2]).all()
    assert np.isfinite(persons.keypoints).all()
    assert np.isin(persons.visibility, (0, 1, 2)).all()
    assert (persons.visibility > 0).any(axis=1).all()
    assert ((persons.image_index >= 0) & (persons.image_index < len(persons.image_ids))).all()
