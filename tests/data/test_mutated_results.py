"""Detections and results files with random changes are read or rejected with a message that names the file."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.coco_results import read_results
from posedy.data.detections import read_box_file, read_detections
from posedy.data.issues import CocoFileError
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.plausibility import find_doubts
from tests.mutations import mutations

pytestmark = pytest.mark.usefixtures("bounded_memory")
SEEDS = [pytest.param(30, 0, id="few"), pytest.param(500, 1, id="many", marks=pytest.mark.slow)]
_LONGEST_MESSAGE = 4000


@pytest.fixture
def persons(coco_folder) -> CocoPersons:
    return read_coco(coco_folder.annotations)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_files(document: Any, count: int, seed: int, folder: Path) -> list[Path]:
    paths = [folder / f"changed-{number}.json" for number in range(count)]
    for path, changed in zip(paths, mutations(document, count, seed), strict=True):
        path.write_text(json.dumps(changed))
    return paths


@pytest.mark.parametrize(("count", "seed"), SEEDS)
def test_detections(persons: CocoPersons, coco_folder, tmp_path: Path, count: int, seed: int) -> None:
    box = {"category_id": 1, "bbox": [1, 2, 30.5, 40], "score": 0.5}
    entries = [
        box | {"image_id": int(image_id), "file_name": name, "width": 64, "height": 48}
        for image_id, name in zip(persons.image_ids, persons.file_names, strict=True)
    ]
    usable = 0
    for path in write_files(entries, count, seed, tmp_path):
        for read in (
            partial(read_box_file, path),
            partial(read_box_file, path, coco_folder.annotations),
            partial(read_detections, path, persons),
        ):
            with allow(CocoFileError, path.name):
                boxes = read()
                usable += len(boxes) > 0
                assert (boxes.boxes[:, 2:] > boxes.boxes[:, :2]).all()
    assert usable > 0


@pytest.mark.parametrize(("count", "seed"), SEEDS)
def test_results(coco_folder, tmp_path: Path, count: int, seed: int) -> None:
    gt = GroundTruth.from_coco(coco_folder.annotations)
    results = [
        {key: person[key] for key in ("image_id", "category_id", "bbox", "keypoints")} | {"score": 0.5}
        for person in gt.labeled
    ]
    evaluated = 0
    for path in write_files(results, count, seed, tmp_path):
        changed = None
        with allow(CocoFileError, path.name):
            changed = read_results(path, gt.num_keypoints)
        if changed is not None:
            with allow(ValueError, gt.source):
                metrics = evaluate_keypoints(gt, changed)
                assert 0 <= metrics["AP"] <= 1
                assert all(isinstance(doubt, str) for doubt in find_doubts(gt, changed, metrics))
                evaluated += 1
    assert evaluated > 0


@contextmanager
def allow(kind: type[Exception], name: str) -> Iterator[None]:
    """Allows an exception whose message has the name and a bounded length."""
    try:
        yield
    except kind as error:
        message = str(error)
    else:
        message = name
    assert name in message
    assert len(message) < _LONGEST_MESSAGE
