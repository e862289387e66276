"""Gallery of the best, median and worst persons."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posedy.data.coco import CocoPersons
from posedy.evaluation.gallery import draw_gallery, select_gallery
from posedy.evaluation.matching import match_persons
from tools.lab.baselines import ground_truth_results


def draw_shifted(persons: CocoPersons, shifts: np.ndarray, num_results: int) -> np.ndarray:
    results = ground_truth_results(persons.annotations)[:num_results]
    for result, shift in zip(results, shifts, strict=False):
        triplets = np.reshape(result["keypoints"], (-1, 3))
        result["keypoints"] = (triplets + np.array([shift, shift, 0])).reshape(-1).tolist()
    index_of = {image_id: index for index, image_id in enumerate(persons.image_ids.tolist())}
    matched = match_persons(persons.annotations, results)
    return draw_gallery(matched, lambda image_id: persons.image_path(index_of[image_id]))


def test_gallery_has_three_rows_of_pairs(persons: CocoPersons) -> None:
    gallery = draw_shifted(persons, np.linspace(0, 10, len(persons)), len(persons))
    assert gallery.dtype == np.uint8
    assert gallery.shape == (3 * (18 + 192 + 2), 6 * (2 * 144 + 2), 3)
    best_gt, best_pred = gallery[18:210, :144], gallery[18:210, 144:288]
    worst_gt, worst_pred = gallery[-194:-2, -290:-146], gallery[-194:-2, -146:-2]
    assert np.abs(best_gt.astype(int) - best_pred).mean() < np.abs(worst_gt.astype(int) - worst_pred).mean()


def test_unmatched_person_is_last_and_has_no_pose(persons: CocoPersons) -> None:
    all_matched = draw_shifted(persons, np.zeros(len(persons)), len(persons))
    one_missing = draw_shifted(persons, np.zeros(len(persons)), len(persons) - 1)
    assert all_matched.shape == one_missing.shape
    gt, pred = one_missing[-194:-2, -290:-146], one_missing[-194:-2, -146:-2]
    assert not np.array_equal(gt, pred)


def test_rows_are_the_best_median_and_worst_persons(persons: CocoPersons) -> None:
    results = ground_truth_results(persons.annotations)
    for shift, result in enumerate(results):
        result["keypoints"] = (
            (np.reshape(result["keypoints"], (-1, 3)) + np.array([shift, shift, 0])).reshape(-1).tolist()
        )
    matched = match_persons(persons.annotations, results)
    rows = {name: matched.oks[indices] for name, indices in select_gallery(matched).items()}
    ranked = np.sort(matched.oks)[::-1]
    assert rows["best"].tolist() == ranked[:6].tolist()
    assert rows["worst"].tolist() == ranked[-6:].tolist()
    assert rows["median"].min() <= np.median(ranked) <= rows["median"].max()


def test_persons_of_missing_images_are_drawn_on_gray(persons: CocoPersons, tmp_path: Path) -> None:
    matched = match_persons(persons.annotations, ground_truth_results(persons.annotations))
    shown = np.concatenate(list(select_gallery(matched).values()))
    gone, unnamed = np.unique(matched.image_ids[shown])[:2].tolist()
    index_of = {image_id: index for index, image_id in enumerate(persons.image_ids.tolist())}

    def find_image(image_id: Any) -> Path:
        if image_id == unnamed:
            raise ValueError("no name")
        return tmp_path / "gone.jpg" if image_id == gone else persons.image_path(index_of[image_id])

    missing: list[tuple[Any, Exception]] = []
    gallery = draw_gallery(matched, find_image, lambda image_id, error: missing.append((image_id, error)))
    complete = draw_gallery(matched, lambda image_id: persons.image_path(index_of[image_id]))
    assert gallery.shape == complete.shape
    expected = [image_id for image_id in matched.image_ids[shown].tolist() if image_id in (gone, unnamed)]
    assert [image_id for image_id, _ in missing] == expected
    assert {str(error) for image_id, error in missing if image_id == unnamed} == {"no name"}
    for position, person in enumerate(shown):
        row, column = divmod(position, 6)
        tile = np.s_[row * 212 + 18 : row * 212 + 210, column * 290 : column * 290 + 288]
        is_missing = matched.image_ids[person] in (gone, unnamed)
        assert np.array_equal(gallery[tile], complete[tile]) != is_missing
        assert ((gallery[tile] == 96).all(axis=-1).mean() > 0.3) == is_missing
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        draw_gallery(matched, find_image)
