"""Crops of packed persons equal crops of the original images."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.data.check import check_coco
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import TopDownEvalDataset
from posedy.geometry import apply_affine
from tools.lab.packing import pack_persons

INPUT_SIZE = (96, 128)


def crops_of(persons: CocoPersons) -> TopDownEvalDataset:
    return TopDownEvalDataset(persons, persons.image_index, persons.boxes, INPUT_SIZE, 1.25)


@pytest.fixture(scope="module")
def packed(persons: CocoPersons, tmp_path_factory: pytest.TempPathFactory) -> CocoPersons:
    out = tmp_path_factory.mktemp("packed")
    annotations = pack_persons(persons, out, input_size=INPUT_SIZE, quality=95)
    report = check_coco(annotations, out / "images", decode=True)
    assert report.ok
    assert not report.warnings, report.format()
    return read_coco(annotations, out / "images")


def test_packing_keeps_persons_skeleton_and_visibility(persons: CocoPersons, packed: CocoPersons) -> None:
    assert sorted(packed.annotation_ids.tolist()) == sorted(persons.annotation_ids.tolist())
    assert packed.skeleton == persons.skeleton
    assert packed.category_id == persons.category_id
    order = np.argsort(packed.annotation_ids)[np.argsort(np.argsort(persons.annotation_ids))]
    np.testing.assert_array_equal(packed.visibility[order], persons.visibility)


def test_packed_crops_have_the_same_pixels_and_keypoints(persons: CocoPersons, packed: CocoPersons) -> None:
    from_image, from_packed = crops_of(persons), crops_of(packed)
    packed_index = {int(person): index for index, person in enumerate(packed.annotation_ids)}
    differences = []
    for index, person in enumerate(persons.annotation_ids):
        other = packed_index[int(person)]
        labeled = persons.visibility[index] > 0
        one = apply_affine(from_image.image_to_crop(index), persons.keypoints[index][labeled])
        two = apply_affine(from_packed.image_to_crop(other), packed.keypoints[other][labeled])
        np.testing.assert_allclose(one, two, atol=0.3)  # sizes are rounded to pixels
        # blurred, because the packed image was downscaled by pixel averaging
        blurred = [cv2.GaussianBlur(c[k]["crop"], (9, 9), 3) for c, k in ((from_image, index), (from_packed, other))]
        differences.append(np.abs(blurred[0].astype(int) - blurred[1]).mean())
    assert np.median(differences) < 2
    assert max(differences) < 6


def test_packed_images_have_at_most_crop_resolution_and_small_persons_keep_their_size(
    persons: CocoPersons, packed: CocoPersons
) -> None:
    assert packed.image_sizes.max() <= 1.5 * max(INPUT_SIZE) + 3
    heights = np.ptp(persons.boxes[:, 1::2], axis=1)
    small = persons.annotation_ids[(crops_of(persons).sizes.max(axis=1) < max(INPUT_SIZE))]
    assert len(small) > 0
    for person in small:
        index = int(np.flatnonzero(persons.annotation_ids == person)[0])
        other = int(np.flatnonzero(packed.annotation_ids == person)[0])
        assert np.ptp(packed.boxes[other, 1::2]) == pytest.approx(heights[index], abs=0.01)


def test_interrupted_packing_leaves_no_annotations(
    persons: CocoPersons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_persons(persons, tmp_path, input_size=INPUT_SIZE)
    assert json.loads((tmp_path / "annotations.json").read_bytes())["images"]

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tools.lab.packing.read_image", broken)
    with pytest.raises(OSError, match="disk full"):
        pack_persons(persons, tmp_path, input_size=INPUT_SIZE)
    assert not (tmp_path / "annotations.json").exists()


@pytest.mark.parametrize(("option", "value"), [("margin", 0.5), ("quality", 0)])
def test_options_out_of_range_are_rejected(persons: CocoPersons, tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        pack_persons(persons, tmp_path, **{option: value})
    assert not list(tmp_path.iterdir())
