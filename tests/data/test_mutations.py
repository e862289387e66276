"""Annotation files with anything wrong in them: no exception but the documented ones, in bounded time and memory."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from posedy.data.check import check_coco
from posedy.data.coco import GroundTruth, read_coco
from posedy.data.issues import CocoFileError
from posedy.data.unlabeled import read_unlabeled
from posedy.skeleton import COCO17
from tests.mutations import mutations

from .conftest import CocoFolder, coco_content

T = TypeVar("T")
MAX_SECONDS = 30.0


def custom_content() -> dict[str, Any]:
    """A file with other names, sided and numbered, and without what may be omitted."""
    content = coco_content()
    category = content["categories"][0]
    names = ["nose", "LEye", "REye", "ear.l", "ear.r", *(f"k{index}" for index in range(12))]
    category.update(keypoints=names, skeleton=[["nose", "LEye"], ["LEye", "ear.l"]])
    del category["flip_pairs"], category["sigmas"], category["upper_body"]
    content["images"][1]["file_name"] = "sub\\b.jpg"
    for record in content["annotations"]:
        del record["num_keypoints"]
        if not any(record["keypoints"]):
            record["keypoints"] = []
    return content


def read_or_none(read: Callable[[], T], path: Path) -> T | None:
    """What `read` returns, or None after a documented exception that names the file."""
    try:
        return read()
    except CocoFileError as error:
        message = str(error)
    assert str(path) in message
    return None


@pytest.mark.parametrize("make", [coco_content, pytest.param(custom_content, marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [15, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("bounded_memory")
def test_mutated_annotations_raise_documented_exceptions_only(
    coco_folder: CocoFolder, make: Callable[[], dict[str, Any]], count: int
) -> None:
    path, images = coco_folder.annotations, coco_folder.images
    for content in mutations(make(), count, seed=count):
        path.write_text(json.dumps(content))
        began = time.perf_counter()
        report = check_coco(path, images)
        assert str(path) in report.format()
        persons = read_or_none(lambda: read_coco(path, images), path)
        assert report.ok == (persons is not None)
        if persons is not None:
            assert len(persons) > 0
            assert np.isfinite(persons.boxes).all()
            assert np.isfinite(persons.keypoints).all()
        read_or_none(lambda: GroundTruth.from_coco(path), path)
        read_or_none(lambda: read_unlabeled(path, images, COCO17), path)
        assert time.perf_counter() - began < MAX_SECONDS


def test_mutations_are_reproducible_and_leave_the_document() -> None:
    document = coco_content()
    first = list(mutations(document, 20, seed=1))
    assert document == coco_content()
    assert repr(first) == repr(list(mutations(document, 20, seed=1)))
    assert sum(repr(mutated) != repr(document) for mutated in first) > 15
    assert repr(first) != repr(list(mutations(document, 20, seed=2)))
