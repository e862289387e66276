"""The picture of the best, median and worst persons."""

import numpy as np
import pytest

from posedy.data.coco import CocoPersons
from posedy.evaluation.gallery import best_median_worst, person_oks
from posedy.evaluation.tester import BoxPoses


def poses(persons: CocoPersons, shift: np.ndarray) -> BoxPoses:
    ones = np.ones(len(persons), dtype=np.float32)
    keypoints = persons.keypoints.astype(np.float64) + shift[:, None, None]
    return BoxPoses(persons.image_index, persons.boxes, ones, keypoints, np.ones(keypoints.shape[:2], np.float32))


def test_oks_of_the_truth_is_1_and_falls_with_the_distance(persons: CocoPersons) -> None:
    still, which = person_oks(persons, poses(persons, np.zeros(len(persons))))
    assert still == pytest.approx(1)
    assert (which == np.arange(len(persons))).all()
    moved, _ = person_oks(persons, poses(persons, np.full(len(persons), 4.0)))
    further, _ = person_oks(persons, poses(persons, np.full(len(persons), 12.0)))
    assert (moved < 1).all()
    assert (further < moved).all()


def test_a_person_of_an_image_without_poses_is_not_found(persons: CocoPersons) -> None:
    all_poses = poses(persons, np.zeros(len(persons)))
    keep = persons.image_index != persons.image_index[0]
    some = BoxPoses(*(value[keep] for value in vars(all_poses).values()))
    oks, which = person_oks(persons, some)
    assert (oks[~keep] == 0).all()
    assert (which[~keep] == -1).all()
    assert oks[keep] == pytest.approx(1)


def test_the_picture_has_three_rows_of_pairs(persons: CocoPersons) -> None:
    random = np.random.default_rng(0)
    picture = best_median_worst(persons, poses(persons, random.uniform(0, 30, len(persons))))
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * (18 + 192 + 2), 6 * (2 * 144 + 2), 3)
    truth, found = picture[18:210, :144], picture[18:210, 144:288]
    worst_truth, worst_found = picture[-194:-2, -290:-146], picture[-194:-2, -146:-2]
    assert np.abs(truth.astype(int) - found).mean() < np.abs(worst_truth.astype(int) - worst_found).mean()
