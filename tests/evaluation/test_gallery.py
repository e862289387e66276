"""The picture of the best, median and worst persons."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posedy.data.coco import CocoPersons
from posedy.evaluation.gallery import best_median_worst, shown_persons
from posedy.evaluation.matching import match_persons
from tools.lab.baselines import truth_results


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


def test_rows_are_of_the_best_the_median_and_the_worst(persons: CocoPersons) -> None:
    results = truth_results(persons.annotations)
    for shift, result in enumerate(results):
        result["keypoints"] = (
            (np.reshape(result["keypoints"], (-1, 3)) + np.array([shift, shift, 0])).reshape(-1).tolist()
        )
    matched = match_persons(persons.annotations, results)
    rows = {name: matched.oks[chosen] for name, chosen in shown_persons(matched).items()}
    in_order = np.sort(matched.oks)[::-1]
    assert rows["best"].tolist() == in_order[:6].tolist()
    assert rows["worst"].tolist() == in_order[-6:].tolist()
    assert rows["median"].min() <= np.median(in_order) <= rows["median"].max()


def test_poses_of_a_missing_photo_are_on_gray(persons: CocoPersons, tmp_path: Path) -> None:
    matched = match_persons(persons.annotations, truth_results(persons.annotations))
    shown = np.concatenate(list(shown_persons(matched).values()))
    gone, unnamed = np.unique(matched.image_ids[shown])[:2].tolist()
    index_of = {image_id: index for index, image_id in enumerate(persons.image_ids.tolist())}

    def photo_of(image_id: Any) -> Path:
        if image_id == unnamed:
            raise ValueError("no name")
        return tmp_path / "gone.jpg" if image_id == gone else persons.image_path(index_of[image_id])

    missing: list[tuple[Any, Exception]] = []
    picture = best_median_worst(matched, photo_of, lambda image_id, error: missing.append((image_id, error)))
    whole = best_median_worst(matched, lambda image_id: persons.image_path(index_of[image_id]))
    assert picture.shape == whole.shape
    expected = [image_id for image_id in matched.image_ids[shown].tolist() if image_id in (gone, unnamed)]
    assert [image_id for image_id, _ in missing] == expected
    assert {str(error) for image_id, error in missing if image_id == unnamed} == {"no name"}
    for place, person in enumerate(shown):
        row, column = divmod(place, 6)
        tile = np.s_[row * 212 + 18 : row * 212 + 210, column * 290 : column * 290 + 288]
        is_missing = matched.image_ids[person] in (gone, unnamed)
        assert np.array_equal(picture[tile], whole[tile]) != is_missing
        assert ((picture[tile] == 96).all(axis=-1).mean() > 0.3) == is_missing
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        best_median_worst(matched, photo_of)
