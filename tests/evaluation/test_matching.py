import copy

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.matching import match_persons
from tools.lab.baselines import ground_truth_results


def test_ground_truth_is_matched_to_itself(annotations):
    results = ground_truth_results(annotations)
    persons = match_persons(annotations, results)
    assert persons.result_indices.tolist() == list(range(len(results)))
    np.testing.assert_allclose(persons.oks, 1)
    assert persons.matched.all()
    assert persons.labeled.sum() == sum(
        person["num_keypoints"] for person in GroundTruth.from_coco(annotations).labeled
    )


def test_oks_follows_the_coco_formula(annotations, noised_results):
    persons = match_persons(annotations, noised_results)
    labeled = GroundTruth.from_coco(annotations).labeled
    assert 0 < persons.matched.sum() < len(labeled)
    for index, person in enumerate(labeled):
        if not persons.matched[index]:
            assert persons.oks[index] == 0
            continue
        result = noised_results[persons.result_indices[index]]
        assert result["image_id"] == person["image_id"] == persons.image_ids[index]
        assert result["score"] == persons.scores[index]
        gt, pred = np.reshape(person["keypoints"], (17, 3)), np.reshape(result["keypoints"], (17, 3))
        similarities = [
            np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (2 * sigma) ** 2 * person["area"]))
            for (u, v, label), (x, y, _), sigma in zip(gt, pred, persons.sigmas, strict=True)
            if label > 0
        ]
        assert persons.oks[index] == pytest.approx(np.mean(similarities))


def test_each_result_is_matched_at_most_once(annotations, noised_results):
    indices = match_persons(annotations, noised_results).result_indices
    indices = indices[indices >= 0]
    assert len(set(indices)) == len(indices)


def test_higher_scored_result_is_matched_first(annotations):
    results = ground_truth_results(annotations)[:1]
    other = copy.deepcopy(results[0])
    keypoints = np.reshape(other["keypoints"], (17, 3))
    keypoints[:, 0] += 1
    other |= {"keypoints": keypoints.reshape(-1).tolist(), "score": 2.0}
    persons = match_persons(annotations, [results[0], other])
    assert persons.result_indices[0] == 1
    assert persons.scores[0] == 2


def test_no_person_is_matched_without_results(annotations):
    persons = match_persons(annotations, [])
    assert not persons.matched.any()
    assert np.isnan(persons.pred_keypoints).all()
    assert (persons.oks == 0).all()


def test_results_ignored_by_coco_are_not_counted(annotations):
    persons = annotations["annotations"]
    crowd = next(person for person in persons if person["iscrowd"] and person["num_keypoints"])
    for person in persons:
        if person is not crowd:
            person["bbox"] = [0.0, 0.0, 1.0, 1.0]
    crowd_result = {"image_id": crowd["image_id"], "category_id": 1, "keypoints": crowd["keypoints"], "score": 1.0}
    results = [crowd_result, *ground_truth_results(annotations)]
    matched = match_persons(annotations, results)
    assert matched.counted.tolist() == [False] + [True] * (len(results) - 1)
    far_away = [5000.0, 5000.0, 1.0] * 17
    many = [dict(results[1], keypoints=far_away, score=float(number)) for number in range(25)]
    assert match_persons(annotations, many).counted.sum() == 20
