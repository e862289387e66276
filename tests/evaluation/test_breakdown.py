import math

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.analysis import compute_breakdown, compute_keypoint_metrics
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.matching import match_persons
from tools.lab.baselines import ground_truth_results


def match_and_break_down(annotations, results):
    gt = GroundTruth.from_coco(annotations)
    persons = match_persons(gt, results)
    return persons, compute_breakdown(gt, results, persons)


def test_ground_truth_has_ap_one_in_every_subset(annotations):
    persons, breakdown = match_and_break_down(annotations, ground_truth_results(annotations))
    for subsets in breakdown.values():
        assert sum(subset.persons for subset in subsets.values()) == len(persons.oks)
        for subset in subsets.values():
            assert math.isnan(subset.ap) if subset.persons == 0 else subset.ap == subset.ar == pytest.approx(1)


def test_size_subsets_are_those_of_coco(annotations, noised_results):
    _, breakdown = match_and_break_down(annotations, noised_results)
    metrics = evaluate_keypoints(annotations, noised_results)
    assert breakdown["size"]["medium"].ar == pytest.approx(metrics["ARm"])
    assert breakdown["size"]["large (from 96x96)"].ar == pytest.approx(metrics["ARl"])


def test_results_near_other_or_no_persons_do_not_reduce_the_ap_of_a_subset(annotations):
    """Large persons are predicted exactly, all others far away with higher scores."""
    persons = GroundTruth.from_coco(annotations).labeled
    results = ground_truth_results(annotations)
    for result, person in zip(results, persons, strict=True):
        result["score"] = 0.5
        if person["area"] < 96**2:
            triplets = np.reshape(result["keypoints"], (17, 3)) + np.array([2000, 2000, 0])
            result |= {"keypoints": triplets.reshape(-1).tolist(), "score": 0.9}
    _, breakdown = match_and_break_down(annotations, results)
    assert breakdown["size"]["large (from 96x96)"].ap == pytest.approx(1)
    assert breakdown["size"]["medium"].ap == 0


@pytest.mark.parametrize(
    ("K", "names"), [(1, ["1"]), (2, ["1", "2"]), (3, ["1", "2", "3"]), (17, ["1 to 5", "6 to 11", "12 to 17"])]
)
def test_keypoint_count_subsets_are_named_by_their_range(annotations, K, names):
    annotations["categories"] = [{"id": 1, "name": "thing", "keypoints": [f"point{k}" for k in range(K)]}]
    for person in annotations["annotations"]:
        triplets = np.reshape(person["keypoints"], (17, 3))[:K]
        person |= {"keypoints": triplets.reshape(-1).tolist(), "num_keypoints": int((triplets[:, 2] > 0).sum())}
    gt = GroundTruth.from_coco(annotations)
    results = ground_truth_results(annotations)
    sigmas = [0.05] * K
    breakdown = compute_breakdown(gt, results, match_persons(gt, results, sigmas), sigmas)
    assert list(breakdown["labeled keypoints"]) == names
    assert sum(subset.persons for subset in breakdown["labeled keypoints"].values()) == len(gt.labeled)


def test_weighted_mean_oks_of_subsets_is_the_overall_mean(annotations, noised_results):
    persons, breakdown = match_and_break_down(annotations, noised_results)
    for subsets in breakdown.values():
        sizes = [subset.persons for subset in subsets.values() if subset.persons]
        means = [subset.oks for subset in subsets.values() if subset.persons]
        assert np.average(means, weights=sizes) == pytest.approx(persons.oks.mean())


def test_neighbors_include_unlabeled_persons_and_crowds(annotations):
    for index, person in enumerate(annotations["annotations"]):
        person["bbox"] = [1000.0 * index, 0.0, 100.0, 100.0]
    labeled, crowd = (
        next(person for person in annotations["annotations"] if person["iscrowd"] == crowd and person["num_keypoints"])
        for crowd in (0, 1)
    )
    crowd["image_id"], crowd["bbox"] = labeled["image_id"], [labeled["bbox"][0] + 50, 0.0, 100.0, 100.0]  # IoU 1/3
    _, breakdown = match_and_break_down(annotations, ground_truth_results(annotations))
    counts = {name: subset.persons for name, subset in breakdown["neighbors (IoU of boxes)"].items()}
    assert counts["over 0.3"] == 1
    assert counts["under 0.1"] == counts["0.1 to 0.3"] == 0


def test_pck_and_similarity_equal_a_plain_computation(annotations, noised_results):
    persons = match_persons(annotations, noised_results)
    metrics = compute_keypoint_metrics(persons)
    for keypoint in (0, 9):
        correct, similarities = [], []
        for index in np.flatnonzero(persons.labeled[:, keypoint]):
            if persons.result_indices[index] < 0:
                correct.append(False)
                similarities.append(0.0)
                continue
            distance = np.hypot(*(persons.pred_keypoints[index, keypoint] - persons.gt_keypoints[index, keypoint]))
            correct.append(distance <= 0.1 * max(persons.boxes[index][2:]))
            spread = 2 * persons.sigmas[keypoint]
            similarities.append(math.exp(-(distance**2) / (2 * spread**2 * persons.areas[index])))
        assert metrics.labeled[keypoint] == len(correct)
        assert metrics.pck[0.1][keypoint] == pytest.approx(np.mean(correct))
        assert metrics.similarity[keypoint] == pytest.approx(np.mean(similarities))


def test_metrics_of_never_labeled_keypoints_are_nan(annotations):
    for person in annotations["annotations"]:
        triplets = np.reshape(person["keypoints"], (17, 3))
        triplets[3] = 0
        person["keypoints"] = triplets.reshape(-1).tolist()
        person["num_keypoints"] = int((triplets[:, 2] > 0).sum())
    metrics = compute_keypoint_metrics(match_persons(annotations, ground_truth_results(annotations)))
    assert metrics.labeled[3] == 0
    assert math.isnan(metrics.similarity[3])
    assert math.isnan(metrics.pck[0.2][3])
    assert metrics.similarity[0] == metrics.pck[0.05][0] == pytest.approx(1)
