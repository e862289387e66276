"""The picture of the best, median and worst persons."""

import numpy as np

from posedy.data.coco import CocoPersons
from posedy.evaluation.baselines import truth_results
from posedy.evaluation.gallery import best_median_worst
from posedy.evaluation.matching import match_persons


def picture_of(persons: CocoPersons, shifts: np.ndarray, found: int) -> np.ndarray:
    results = truth_results(persons.annotations)[:found]
    for result, shift in zip(results, shifts, strict=False):
        triplets = np.reshape(result["keypoints"], (-1, 3))
        result["keypoints"] = (triplets + np.array([shift, shift, 0])).reshape(-1).tolist()
    index_of = {image_id: index for index, image_id in enumerate(persons.image_ids.tolist())}
    matched = match_persons(persons.annotations, results)
    return best_median_worst(matched, lambda image_id: persons.image_path(index_of[image_id]))


def test_the_picture_has_three_rows_of_pairs(persons: CocoPersons) -> None:
    picture = picture_of(persons, np.linspace(0, 10, len(persons)), len(persons))
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * (18 + 192 + 2), 6 * (2 * 144 + 2), 3)
    truth, found = picture[18:210, :144], picture[18:210, 144:288]
    worst_truth, worst_found = picture[-194:-2, -290:-146], picture[-194:-2, -146:-2]
    assert np.abs(truth.astype(int) - found).mean() < np.abs(worst_truth.astype(int) - worst_found).mean()


def test_who_was_not_found_comes_last_without_a_pose(persons: CocoPersons) -> None:
    all_found = picture_of(persons, np.zeros(len(persons)), len(persons))
    one_missing = picture_of(persons, np.zeros(len(persons)), len(persons) - 1)
    assert all_found.shape == one_missing.shape
    truth, found = one_missing[-194:-2, -290:-146], one_missing[-194:-2, -146:-2]
    assert not np.array_equal(truth, found)
