import math

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.analysis import break_down, keypoint_numbers
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.matching import match_persons
from tools.lab.baselines import truth_results


def numbers(annotations, results):
    truth = GroundTruth.from_coco(annotations)
    persons = match_persons(truth, results)
    return persons, break_down(truth, results, persons)


def test_the_truth_is_perfect_in_every_part(annotations):
    persons, parts = numbers(annotations, truth_results(annotations))
    for group in parts.values():
        assert sum(part.persons for part in group.values()) == len(persons.oks)
        for part in group.values():
            assert math.isnan(part.ap) if part.persons == 0 else part.ap == part.ar == pytest.approx(1)


def test_sizes_are_coco_s(annotations, noised_results):
    _, parts = numbers(annotations, noised_results)
    metrics = evaluate_keypoints(annotations, noised_results)
    assert parts["size"]["medium"].ar == pytest.approx(metrics["ARm"])
    assert parts["size"]["large (from 96x96)"].ar == pytest.approx(metrics["ARl"])


def test_poses_of_others_and_of_nobody_cost_a_part_nothing(annotations):
    """Large persons are found to the pixel; the rest is far off, with higher scores."""
    people = GroundTruth.from_coco(annotations).labeled
    results = truth_results(annotations)
    for result, person in zip(results, people, strict=True):
        result["score"] = 0.5
        if person["area"] < 96**2:
            triplets = np.reshape(result["keypoints"], (17, 3)) + np.array([2000, 2000, 0])
            result |= {"keypoints": triplets.reshape(-1).tolist(), "score": 0.9}
    _, parts = numbers(annotations, results)
    assert parts["size"]["large (from 96x96)"].ap == pytest.approx(1)
    assert parts["size"]["medium"].ap == 0


@pytest.mark.parametrize(
    ("K", "names"), [(1, ["1"]), (2, ["1", "2"]), (3, ["1", "2", "3"]), (17, ["1 to 5", "6 to 11", "12 to 17"])]
)
def test_thirds_of_few_keypoints_have_sensible_names(annotations, K, names):
    annotations["categories"] = [{"id": 1, "name": "thing", "keypoints": [f"point{k}" for k in range(K)]}]
    for person in annotations["annotations"]:
        triplets = np.reshape(person["keypoints"], (17, 3))[:K]
        person |= {"keypoints": triplets.reshape(-1).tolist(), "num_keypoints": int((triplets[:, 2] > 0).sum())}
    truth = GroundTruth.from_coco(annotations)
    results = truth_results(annotations)
    sigmas = [0.05] * K
    parts = break_down(truth, results, match_persons(truth, results, sigmas), sigmas)
    assert list(parts["labeled keypoints"]) == names
    assert sum(part.persons for part in parts["labeled keypoints"].values()) == len(truth.labeled)


def test_mean_oks_of_parts_is_that_of_all(annotations, noised_results):
    persons, parts = numbers(annotations, noised_results)
    for group in parts.values():
        sizes = [part.persons for part in group.values() if part.persons]
        means = [part.oks for part in group.values() if part.persons]
        assert np.average(means, weights=sizes) == pytest.approx(persons.oks.mean())


def test_neighbors_are_found_among_all_annotated_persons(annotations):
    for index, person in enumerate(annotations["annotations"]):
        person["bbox"] = [1000.0 * index, 0.0, 100.0, 100.0]
    labeled, crowd = (
        next(person for person in annotations["annotations"] if person["iscrowd"] == crowd and person["num_keypoints"])
        for crowd in (0, 1)
    )
    crowd["image_id"], crowd["bbox"] = labeled["image_id"], [labeled["bbox"][0] + 50, 0.0, 100.0, 100.0]  # IoU 1/3
    _, parts = numbers(annotations, truth_results(annotations))
    found = {name: part.persons for name, part in parts["neighbors (IoU of boxes)"].items()}
    assert found["over 0.3"] == 1
    assert found["under 0.1"] == found["0.1 to 0.3"] == 0


def test_pck_and_similarity_by_hand(annotations, noised_results):
    persons = match_persons(annotations, noised_results)
    found = keypoint_numbers(persons)
    for keypoint in (0, 9):
        near, similar = [], []
        for index in np.flatnonzero(persons.labeled[:, keypoint]):
            if persons.results[index] < 0:
                near.append(False)
                similar.append(0.0)
                continue
            distance = np.hypot(*(persons.predicted[index, keypoint] - persons.truth[index, keypoint]))
            near.append(distance <= 0.1 * max(persons.boxes[index][2:]))
            spread = 2 * persons.sigmas[keypoint]
            similar.append(math.exp(-(distance**2) / (2 * spread**2 * persons.areas[index])))
        assert found.labeled[keypoint] == len(near)
        assert found.pck[0.1][keypoint] == pytest.approx(np.mean(near))
        assert found.similarity[keypoint] == pytest.approx(np.mean(similar))


def test_keypoints_labeled_nowhere_have_no_numbers(annotations):
    for person in annotations["annotations"]:
        triplets = np.reshape(person["keypoints"], (17, 3))
        triplets[3] = 0
        person["keypoints"] = triplets.reshape(-1).tolist()
        person["num_keypoints"] = int((triplets[:, 2] > 0).sum())
    found = keypoint_numbers(match_persons(annotations, truth_results(annotations)))
    assert found.labeled[3] == 0
    assert math.isnan(found.similarity[3])
    assert math.isnan(found.pck[0.2][3])
    assert found.similarity[0] == found.pck[0.05][0] == pytest.approx(1)
