import copy
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from posedy.data.check import check_coco
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.findings import CocoFileError
from posedy.images import read_image


def change(part, index, **values):
    """A change of one record; ... removes the key."""

    def spoil(content):
        record = content[part][index]
        record.update(values)
        for key in [key for key, value in record.items() if value is ...]:
            del record[key]

    return spoil


def annotation(index, **values):
    return change("annotations", index, **values)


def image(index, **values):
    return change("images", index, **values)


def keypoint(index, position, value):
    def spoil(content):
        content["annotations"][index]["keypoints"][position] = value

    return spoil


def keep(part, *indices):
    def spoil(content):
        content[part] = [content[part][index] for index in indices]

    return spoil


def repeat(part, index, **values):
    def spoil(content):
        content[part].append(content[part][index] | values)

    return spoil


def both(*spoils):
    def spoil(content):
        for part in spoils:
            part(content)

    return spoil


NO_KEYPOINTS = {"keypoints": [0] * 51, "num_keypoints": 0}
SPOILED = {
    "no images": (lambda c: c.pop("images"), "error", "top-level part missing", 1, ["'images' is not there"]),
    "annotations a dict": (
        lambda c: c.update(annotations={}),
        "error",
        "top-level part missing or not a list",
        1,
        ["'annotations' is {}"],
    ),
    "nothing": (
        lambda c: c.clear(),
        "error",
        "top-level part missing",
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
        ["'person', 'dog'", "Keep the one"],
    ),
    "category id": (change("categories", 0, id="1"), "error", "category without a valid id", 1, ["id '1'"]),
    "skeleton": (change("categories", 0, keypoints=["a", "a"]), "error", "the skeleton of the category", 1, ["repeat"]),
    "skeleton far": (change("categories", 0, flip_pairs=[[math.inf, 0]]), "error", "the skeleton", 1, ["Repair"]),
    "no sigmas": (
        change("categories", 0, keypoints=[f"k{i}" for i in range(17)], sigmas=...),
        "warning",
        "skeleton without sigmas",
        1,
        ["OKS"],
    ),
    "no pairs": (
        change("categories", 0, keypoints=[f"k{i}" for i in range(17)], flip_pairs=...),
        "warning",
        "skeleton without left and right",
        1,
        ["k0", "flip_pairs"],
    ),
    "not an object": (lambda c: c["images"].append(7), "error", "entry of 'images'", 1, ["images[4] is 7"]),
    "short keypoints": (
        annotation(2, keypoints=[1, 2, 2]),
        "error",
        "'keypoints' of the wrong form",
        1,
        ["annotation 3 of sub/b.jpg: keypoints [1, 2, 2]", "write 51 numbers"],
    ),
    "keypoints of text": (keypoint(0, 4, "9"), "error", "'keypoints' of the wrong form", 1, ["annotation 1 of a.jpg"]),
    "no keypoints": (annotation(4, keypoints=...), "error", "'keypoints' missing", 1, ["annotation 5", "no keypoints"]),
    "flag 3": (keypoint(0, 2, 3), "error", "visibility flag", 1, ["annotation 1 of a.jpg: nose x 20, y 10, v 3"]),
    "flag half": (keypoint(0, 5, 0.5), "error", "visibility flag", 1, ["left_eye x 22, y 9, v 0.5"]),
    "NaN": (keypoint(0, 0, math.nan), "error", "keypoint at NaN", 1, ["annotation 1 of a.jpg: nose x nan, y 10"]),
    "infinity": (
        keypoint(2, 1, math.inf),
        "error",
        "keypoint at NaN",
        1,
        ["annotation 3 of sub/b.jpg: nose x 20, y inf"],
    ),
    "huge": (keypoint(2, 1, 1e300), "error", "keypoint at NaN", 1, ["y 1e+300"]),
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
        "box of no area",
        1,
        ["annotation 2 of a.jpg: bbox [3.0, 4.0, 5.0, 0.0]"],
    ),
    "negative box": (annotation(1, bbox=[30, 4, -5, 9]), "error", "box of no area", 1, ["annotation 2", "-5.0"]),
    "sliver below float32": (annotation(1, bbox=[30, 4, 1e-20, 9]), "error", "box of no area", 1, ["annotation 2"]),
    "box off": (
        annotation(1, bbox=[64, 0, 10, 10]),
        "error",
        "box that lies off its image",
        1,
        ["annotation 2 of a.jpg: bbox [64.0, 0.0, 10.0, 10.0], image 64 x 48"],
    ),
    "box over": (
        annotation(1, bbox=[0, 0, 70, 48]),
        "warning",
        "box that reaches over the border",
        1,
        ["annotation 2 of a.jpg: bbox [0.0, 0.0, 70.0, 48.0], image 64 x 48"],
    ),
    "no box": (annotation(1, bbox=...), "error", "'bbox' missing", 1, ["annotation 2 of a.jpg: no bbox"]),
    "box of three": (annotation(1, bbox=[1, 2, 3]), "error", "'bbox' of the wrong form", 1, ["bbox [1, 2, 3]"]),
    "NaN box": (annotation(4, bbox=[1, 2, math.nan, 3]), "error", "'bbox' of the wrong form", 1, ["annotation 5"]),
    "no area": (annotation(0, area=...), "error", "'area' missing", 1, ["annotation 1 of a.jpg: no area"]),
    "area of text": (annotation(0, area="300"), "error", "'area' of the wrong form", 1, ["area '300'"]),
    "area 0": (annotation(0, area=0), "error", "area not above 0", 1, ["annotation 1 of a.jpg: area 0", "OKS divides"]),
    "area NaN": (annotation(0, area=math.nan), "error", "area not above 0", 1, ["area nan"]),
    "no iscrowd": (annotation(0, iscrowd=...), "error", "'iscrowd' missing", 1, ["annotation 1 of a.jpg: no iscrowd"]),
    "iscrowd 2": (annotation(0, iscrowd=2), "error", "'iscrowd' of the wrong form", 1, ["iscrowd 2"]),
    "no count": (annotation(0, num_keypoints=...), "error", "'num_keypoints' missing", 1, ["annotation 1 of a.jpg"]),
    "count": (
        annotation(0, num_keypoints=17),
        "warning",
        "num_keypoints that disagrees",
        1,
        ["annotation 1 of a.jpg: num_keypoints 17, 5 with v > 0"],
    ),
    "stray annotations": (
        keep("images", 1, 2, 3),
        "error",
        "annotation of an image that the file does not have",
        2,
        ["annotation 1: image_id 10", "annotation 2: image_id 10"],
    ),
    "image_id of text": (annotation(0, image_id="a"), "error", "'image_id' of the wrong form", 1, ["image_id 'a'"]),
    "no category_id": (
        annotation(0, category_id=...),
        "error",
        "annotation without a valid category_id",
        1,
        ["annotation 1"],
    ),
    "annotation id": (annotation(0, id=1.5), "error", "'id' of the wrong form", 1, ["id 1.5"]),
    "long id": (annotation(0, id=10**30), "error", "'id' of the wrong form", 1, ["annotation 1"]),
    "annotation id twice": (
        annotation(1, id=1),
        "error",
        "annotation id that stands twice",
        1,
        ["annotation 1 of a.jpg"],
    ),
    "annotation id 0": (annotation(0, id=0), "warning", "annotation id 0", 1, ["annotation 0 of a.jpg", "from 1"]),
    "image id twice": (image(3, id=10), "error", "image id that stands twice", 1, ["image 10 (empty.jpg)"]),
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
        ["0 of 2 annotations kept because of: 1 crowd, 1 no labeled keypoints"],
    ),
    "other category": (
        change("categories", 0, id=9),
        "error",
        "no usable person",
        1,
        ["0 of 5 annotations kept because of: 5 of other categories", "category_id 9"],
    ),
    "no annotations": (keep("annotations"), "error", "no usable person", 1, ["0 of 0 annotations kept"]),
    "no images at all": (keep("images"), "error", "no usable person", 1, ["0 of 5 annotations", "5 with errors"]),
    "missing photo": (image(1, file_name="c.jpg"), "error", "missing photo", 1, ["image 20", "c.jpg", "Fetch"]),
    "missing photo of nobody": (
        image(3, file_name="c.jpg"),
        "warning",
        "missing photo (without usable persons)",
        1,
        ["image 40", "c.jpg"],
    ),
    "folder as photo": (image(0, file_name="sub"), "error", "unreadable photo", 1, ["image 10", "sub"]),
    "another size": (
        image(0, width=48, height=64),
        "error",
        "photo of another size",
        1,
        ["a.jpg is 64 x 48, recorded 48 x 64, turned by a quarter"],
    ),
}


def finding(report, kind):
    found = [item for item in report.findings if item.kind.startswith(kind)]
    assert len(found) == 1, report.format()
    return found[0]


@pytest.mark.parametrize(("spoil", "severity", "kind", "count", "texts"), SPOILED.values(), ids=SPOILED)
def test_spoiled_file_is_named_and_counted(coco_folder, spoil, severity, kind, count, texts):
    spoil(coco_folder.content)
    coco_folder.write()
    report = check_coco(coco_folder.annotations, coco_folder.images)
    found = finding(report, kind)
    assert (found.severity, found.count) == (severity, count)
    for text in texts:
        assert text in str(found)
    assert str(found) in report.format()
    if severity == "error":
        with pytest.raises(CocoFileError) as caught:
            read_coco(coco_folder.annotations, coco_folder.images)
        assert str(found) in str(caught.value)
        assert str(coco_folder.annotations) in str(caught.value)
    else:
        assert report.ok
        assert read_coco(coco_folder.annotations, coco_folder.images).warnings == report.warnings == (found,)


def test_valid_file_has_no_findings(coco_folder):
    report = check_coco(coco_folder.annotations, coco_folder.images, decode=True)
    assert report.ok
    assert report.findings == ()
    assert report.summary == (
        "persons.json: 4 images, 3 persons with keypoints on 2 of them; left out: 1 crowd, 1 no labeled keypoints"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        annotation(3, bbox=[0, 0, 0, 0], area=0),
        annotation(4, bbox=[99, 99, 9, 9], area=-1),
        annotation(0, bbox=[-0.5, -0.9, 65, 49]),
        keypoint(0, 0, 68),
        annotation(0, extra={"a": [1]}, score="?"),
        repeat("annotations", 0, id=9, category_id=3, keypoints=None),
        image(0, width=64.0),
        repeat("categories", 0, id=3, name="chair", keypoints=[]),
    ],
    ids=["crowd", "unlabeled", "fractions over", "a little outside", "extra keys", "other", "float width", "chair"],
)
def test_harmless_oddities_are_no_findings(coco_folder, spoil):
    spoil(coco_folder.content)
    coco_folder.write()
    assert check_coco(coco_folder.annotations).findings == ()


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b"{", "the file is not JSON", "line 1"),
        (b"", "the file is not JSON", "persons.json"),
        (b"\xff\xfe\x00", "the file is not JSON", "persons.json"),
        (b"[" * 100_000, "the file is not JSON", "nested"),
        (b"[]", "the annotation file is not a COCO annotation file", "holds a list"),
        (b"null", "the annotation file is not a COCO annotation file", "holds a NoneType"),
    ],
)
def test_files_that_are_no_annotations(coco_folder, data, kind, text):
    coco_folder.annotations.write_bytes(data)
    assert text in str(finding(check_coco(coco_folder.annotations), kind))
    with pytest.raises(CocoFileError, match=kind):
        read_coco(coco_folder.annotations)


def test_missing_files_and_folders(coco_folder, tmp_path):
    found = finding(check_coco(tmp_path / "none.json"), "the annotation file cannot be read")
    assert "none.json" in str(found)
    found = finding(check_coco(coco_folder.annotations, tmp_path / "none"), "no folder of photos")
    assert "none" in str(found)


def test_byte_order_mark_is_accepted(coco_folder):
    coco_folder.annotations.write_bytes(b"\xef\xbb\xbf" + coco_folder.annotations.read_bytes())
    assert check_coco(coco_folder.annotations).ok


def test_broken_photos(coco_folder):
    (coco_folder.images / "a.jpg").write_bytes(b"")
    (coco_folder.images / "sub/b.jpg").write_bytes(b"not a picture")
    found = finding(check_coco(coco_folder.annotations, coco_folder.images), "unreadable photo")
    assert (found.severity, found.count) == ("error", 2)
    assert "a.jpg is not a picture (0 bytes)" in str(found)
    assert "image 20: " in str(found)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("decode", [False, True])
def test_truncated_photos(coco_folder, kind, decode):
    for name in ("sub/b.jpg", "empty.jpg"):
        path = coco_folder.images / name
        Image.open(path).save(path, format=kind)
        path.write_bytes(path.read_bytes()[:-400])
    report = check_coco(coco_folder.annotations, coco_folder.images, decode=decode)
    errors, warnings = report.findings
    assert (errors.severity, errors.kind, errors.count) == ("error", "truncated photo", 1)
    assert "b.jpg ends early, after" in str(errors)
    assert (warnings.severity, warnings.kind) == ("warning", "truncated photo (without usable persons)")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_bytes_after_the_end_do_not_make_a_photo_truncated(coco_folder, kind):
    path = coco_folder.images / "a.jpg"
    Image.open(path).save(path, format=kind)
    for count in (7, 5000):
        path.write_bytes(path.read_bytes() + bytes(count))
        assert check_coco(coco_folder.annotations, coco_folder.images, decode=True).findings == ()


def test_only_decoding_finds_damage_inside(coco_folder):
    path = coco_folder.images / "sub/b.jpg"
    Image.open(path).save(path, format="PNG")
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes(400) + data[1400:])
    assert check_coco(coco_folder.annotations, coco_folder.images).ok
    assert finding(check_coco(coco_folder.annotations, coco_folder.images, decode=True), "unreadable photo").count == 1


@pytest.mark.parametrize("kind", ["BMP", "GIF", "ICO", "JPEG", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP"])
def test_formats_are_accepted_that_training_reads(coco_folder, kind):
    path = coco_folder.images / "a.jpg"
    Image.new("RGB", (64, 48)).save(path, format=kind)
    report = check_coco(coco_folder.annotations, coco_folder.images)
    try:
        read_image(path)
    except OSError:
        assert finding(report, "unreadable photo").count == 1
    else:
        assert report.findings == ()


def test_size_is_that_of_the_pixels_not_of_the_exif_orientation(coco_folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(coco_folder.images / "a.jpg", exif=exif)
    assert check_coco(coco_folder.annotations, coco_folder.images, decode=True).ok


def test_examples_stop_at_five_and_stay_short(coco_folder):
    for index in range(8):
        coco_folder.content["annotations"].append(
            coco_folder.content["annotations"][0] | {"id": 100 + index, "area": "x" * 9999}
        )
    coco_folder.write()
    found = finding(check_coco(coco_folder.annotations), "'area' of the wrong form")
    assert (found.count, len(found.examples)) == (8, 5)
    assert "and 3 more" in str(found)
    assert len(str(found)) < 2000


def test_several_errors_are_all_listed(coco_folder):
    both(annotation(0, area=0), annotation(1, bbox=[0, 0, 0, 0]), image(3, id=10))(coco_folder.content)
    coco_folder.write()
    with pytest.raises(CocoFileError) as caught:
        read_coco(coco_folder.annotations)
    for kind in ("area not above 0", "box of no area", "image id that stands twice"):
        assert kind in str(caught.value)


def places(value, path=()):
    """The paths of all values inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_content_raises_anything_but_coco_file_errors(coco_folder, data):
    content = copy.deepcopy(coco_folder.content)
    for _ in range(data.draw(st.integers(1, 4))):
        # a part of the file first, so that its fifty numbers of keypoints do not take all the changes
        options = sorted({path[:depth] for path in places(content) for depth in (1, 2, 3, 4)} - {()}, key=repr)
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
