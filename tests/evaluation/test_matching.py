import copy

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.matching import match_persons
from tools.lab.baselines import truth_results


def test_the_truth_is_matched_with_itself(annotations):
    results = truth_results(annotations)
    persons = match_persons(annotations, results)
    assert persons.results.tolist() == list(range(len(results)))
    np.testing.assert_allclose(persons.oks, 1)
    assert persons.found.all()
    assert persons.labeled.sum() == sum(
        person["num_keypoints"] for person in GroundTruth.from_coco(annotations).labeled
    )


def test_oks_is_coco_s(annotations, noised_results):
    """Each found person's OKS by the formula, keypoint by keypoint."""
    persons = match_persons(annotations, noised_results)
    labeled = GroundTruth.from_coco(annotations).labeled
    assert 0 < persons.found.sum() < len(labeled)
    for index, person in enumerate(labeled):
        if not persons.found[index]:
            assert persons.oks[index] == 0
            continue
        result = noised_results[persons.results[index]]
        assert result["image_id"] == person["image_id"] == persons.image_ids[index]
        assert result["score"] == persons.scores[index]
        truth, found = np.reshape(person["keypoints"], (17, 3)), np.reshape(result["keypoints"], (17, 3))
        parts = [
            np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (2 * sigma) ** 2 * person["area"]))
            for (u, v, label), (x, y, _), sigma in zip(truth, found, persons.sigmas, strict=True)
            if label > 0
        ]
        assert persons.oks[index] == pytest.approx(np.mean(parts))


def test_each_pose_is_one_person_s(annotations, noised_results):
    found = match_persons(annotations, noised_results).results
    found = found[found >= 0]
    assert len(set(found)) == len(found)


def test_the_better_scored_pose_chooses_first(annotations):
    results = truth_results(annotations)[:1]
    rival = copy.deepcopy(results[0])
    keypoints = np.reshape(rival["keypoints"], (17, 3))
    keypoints[:, 0] += 1
    rival |= {"keypoints": keypoints.reshape(-1).tolist(), "score": 2.0}
    persons = match_persons(annotations, [results[0], rival])
    assert persons.results[0] == 1
    assert persons.scores[0] == 2


def test_without_results_nobody_is_found(annotations):
    persons = match_persons(annotations, [])
    assert not persons.found.any()
    assert np.isnan(persons.predicted).all()
    assert (persons.oks == 0).all()


def test_results_that_coco_ignores_do_not_count(annotations):
    people = annotations["annotations"]
    crowd = next(person for person in people if person["iscrowd"] and person["num_keypoints"])
    for person in people:
        if person is not crowd:
            person["bbox"] = [0.0, 0.0, 1.0, 1.0]
    of_crowd = {"image_id": crowd["image_id"], "category_id": 1, "keypoints": crowd["keypoints"], "score": 1.0}
    results = [of_crowd, *truth_results(annotations)]
    persons = match_persons(annotations, results)
    assert persons.counted.tolist() == [False] + [True] * (len(results) - 1)
    nowhere = [5000.0, 5000.0, 1.0] * 17
    many = [dict(results[1], keypoints=nowhere, score=float(number)) for number in range(25)]
    assert match_persons(annotations, many).counted.sum() == 20
