"""Coordinates that are no image pixels are an issue that names the likely cause; unusual pixels are none."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posedy.data.check import check_coco
from posedy.data.coco import read_coco
from posedy.data.issues import CocoFileError
from posedy.data.unlabeled import read_unlabeled
from posedy.skeleton import COCO17

Content = dict[str, Any]
ALL = slice(None)
Change = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def make_content(size: tuple[int, int] = (640, 480), num_persons: int = 8) -> Content:
    """Persons with 12 keypoints in their boxes, two on each image."""
    rng = np.random.default_rng(0)
    annotations = []
    for index in range(num_persons):
        extent = rng.uniform([0.15, 0.3], [0.3, 0.5]) * size
        # far from the left and top border and from the diagonal
        low = np.array([0.5 if index % 2 else 0.2, 0.15]) * size + rng.uniform(0, 0.1, 2) * size
        points = np.zeros((17, 3))
        points[:12] = np.column_stack([rng.uniform(low, low + extent, (12, 2)), np.full(12, 2)])
        annotations.append(
            {
                "id": index + 1,
                "image_id": index // 2 + 1,
                "category_id": 1,
                "bbox": [*low, *extent],
                "area": float(extent.prod()) / 2,
                "keypoints": points.reshape(-1),
            }
        )
    images = [
        {"id": index + 1, "file_name": f"{index + 1}.jpg", "width": size[0], "height": size[1]}
        for index in range((num_persons + 1) // 2)
    ]
    return {"images": images, "annotations": annotations, "categories": [COCO17.to_coco_category()]}


def changed(content: Content, change: Change, which: slice = ALL) -> Content:
    """Changes boxes (4,) and labeled keypoints (L, 2) of some persons."""
    content = copy.deepcopy(content)
    sizes = {image["id"]: np.array([image["width"], image["height"]]) for image in content["images"]}
    for record in content["annotations"][which]:
        points = np.reshape(record["keypoints"], (-1, 3)).astype(float)
        labeled = points[:, 2] > 0
        box, points[labeled, :2] = change(np.array(record["bbox"]), points[labeled, :2], sizes[record["image_id"]])
        record.update(bbox=list(box), keypoints=points.reshape(-1))
    return content


def write(content: Content, folder: Path) -> Path:
    path = folder / "persons.json"
    path.write_text(json.dumps(content, default=lambda value: value.tolist()))
    return path


def to_corners(box: np.ndarray) -> np.ndarray:
    return np.concatenate([box[:2], box[:2] + box[2:]])


def exchange_boxes(content: Content) -> Content:
    content = copy.deepcopy(content)
    for first, second in zip(content["annotations"][::2], content["annotations"][1::2], strict=True):
        first["bbox"], second["bbox"] = second["bbox"], first["bbox"]
    return content


OUTSIDE, BOXES = "labeled keypoints outside their own box", "boxes may not be x, y, width, height in pixels"
FRACTIONS, PERCENT = "coordinates are fractions", "coordinates may be percent of the image size"
FRAMES: dict[str, tuple[Change, str, str]] = {
    "fractions": (lambda box, points, size: (box / np.tile(size, 2), points / size), FRACTIONS, "1.5"),
    "fractional boxes": (lambda box, points, size: (box / np.tile(size, 2), points), FRACTIONS, "1.5"),
    "fractional keypoints": (lambda box, points, size: (box, points / size), FRACTIONS, "1.5"),
    "fractions of the box": (lambda box, points, size: (box, (points - box[:2]) / box[2:]), FRACTIONS, "1.5"),
    "percent": (lambda box, points, size: (box / np.tile(size, 2) * 100, points / size * 100), PERCENT, "640"),
    "percent keypoints": (lambda box, points, size: (box, points / size * 100), OUTSIDE, "percent"),
    "percent boxes": (lambda box, points, size: (box / np.tile(size, 2) * 100, points), OUTSIDE, "boxes were percent"),
    "relative to the corner": (lambda box, points, size: (box, points - box[:2]), OUTSIDE, "corner"),
    "y, x keypoints": (lambda box, points, size: (box, points[:, ::-1]), OUTSIDE, "exchanged"),
    "y, x boxes": (lambda box, points, size: (box[[1, 0, 3, 2]], points), OUTSIDE, "exchanged"),
    "y, x of both": (lambda box, points, size: (box[[1, 0, 3, 2]], points[:, ::-1]), BOXES, "exchanged"),
    "center boxes": (lambda box, points, size: (np.append(box[:2] + box[2:] / 2, box[2:]), points), OUTSIDE, "center"),
    "x1, y1, x2, y2": (lambda box, points, size: (to_corners(box), points), BOXES, "x1, y1, x2, y2"),
    "thousandths": (
        lambda box, points, size: (box / np.tile(size, 2) * np.tile([1150, 1350], 2), points / size * [1150, 1350]),
        BOXES,
        "thousandths",
    ),
    "other pixels": (lambda box, points, size: (box, size - points), OUTSIDE, "Check that"),
}


@pytest.mark.parametrize(("change", "kind", "text"), FRAMES.values(), ids=FRAMES)
def test_other_coordinates_give_one_issue_with_the_cause(tmp_path: Path, change: Change, kind: str, text: str) -> None:
    path = write(changed(make_content(), change), tmp_path)
    report = check_coco(path)
    causes = [issue for issue in report.issues if issue.kind in (OUTSIDE, BOXES, FRACTIONS, PERCENT)]
    assert [issue.kind for issue in causes] == [kind], report.format()
    assert text in causes[0].advice
    assert re.match(r"annotation \d of \d\.jpg: bbox|annotation \d of \d\.jpg: \d+ of 12", causes[0].examples[0])
    if kind == FRACTIONS:
        with pytest.raises(CocoFileError, match=r"annotation 1 of 1\.jpg"):
            read_coco(path)
    else:
        assert causes[0] in report.warnings


def test_boxes_of_other_persons_are_named(tmp_path: Path) -> None:
    report = check_coco(write(exchange_boxes(make_content()), tmp_path))
    assert [issue.kind for issue in report.issues] == [OUTSIDE]
    assert "another person" in report.issues[0].advice


@pytest.mark.parametrize("name", ["fractions", "fractional keypoints", "relative to the corner", "percent keypoints"])
def test_few_wrong_persons_are_counted(tmp_path: Path, name: str) -> None:
    change, kind, text = FRAMES[name]
    (issue,) = check_coco(write(changed(make_content(), change, slice(3, 6, 2)), tmp_path)).issues
    assert (issue.kind, issue.count) == (kind, 2)
    assert issue.examples[0].startswith("annotation 4 of 2.jpg")
    assert text in issue.advice


def test_percent_of_one_person_are_detected_by_the_area(tmp_path: Path) -> None:
    content = changed(make_content((400, 300), num_persons=1), FRAMES["percent"][0])
    content["annotations"][0]["bbox"] = [20.0, 20.0, 40.0, 75.0]
    assert [issue.kind for issue in check_coco(write(content, tmp_path)).issues] == [PERCENT]
    content["annotations"][0]["area"] = 2000.0
    assert check_coco(write(content, tmp_path)).ok


@pytest.mark.parametrize("size", [(64, 48), (100, 100), (150, 120), (640, 480), (4000, 3000)])
@pytest.mark.parametrize("num_persons", [1, 8])
def test_pixels_give_no_issue(tmp_path: Path, size: tuple[int, int], num_persons: int) -> None:
    assert check_coco(write(make_content(size, num_persons), tmp_path)).issues == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda box, points, size: (box, box[:2] - 0.4 * box[2:].max() + 0 * points[:2]),
        lambda box, points, size: (np.array([0.0, 0.0, 1.5, 1.5]) * 10, points[:1] * 0 + 1.25),
        lambda box, points, size: (np.concatenate([[0.0, 0.0], size]), points),
    ],
    ids=["one keypoint outside", "only keypoint in the corner", "full-image box"],
)
def test_unusual_persons_give_no_issue(tmp_path: Path, change: Change) -> None:
    content = make_content(num_persons=1)
    triplets = np.reshape(content["annotations"][0]["keypoints"], (-1, 3))
    triplets[1:] = 0
    content["annotations"][0]["keypoints"] = triplets.reshape(-1)
    content = changed(
        content, lambda box, points, size: (lambda b, p: (b, np.resize(p, points.shape)))(*change(box, points, size))
    )
    assert check_coco(write(content, tmp_path)).issues == ()


def test_fractional_boxes_of_unlabeled_persons_are_an_error(tmp_path: Path) -> None:
    content = changed(make_content(), FRAMES["fractions"][0])
    for record in content["annotations"]:
        del record["keypoints"]
    (tmp_path / "images").mkdir()
    with pytest.raises(CocoFileError, match=FRACTIONS):
        read_unlabeled(write(content, tmp_path), tmp_path / "images", COCO17, image_check="never")


def test_many_wrong_persons_are_explained_in_bounded_time(tmp_path: Path) -> None:
    content = make_content()
    records = changed(content, FRAMES["other pixels"][0])["annotations"]
    content["annotations"] = [{**records[index % 8], "id": index + 1} for index in range(800)]
    assert check_coco(write(content, tmp_path)).issues[0].count == 800
