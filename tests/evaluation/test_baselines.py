import copy

import numpy as np
import pytest

from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.skeleton import COCO17, Skeleton
from tools.lab.baselines import median_pose_results, mirrored_truth_results, truth_results

BASELINES = [truth_results, median_pose_results, lambda annotations: mirrored_truth_results(annotations, COCO17)]


def labeled_persons(annotations):
    return [person for person in annotations["annotations"] if person["num_keypoints"] and not person["iscrowd"]]


def triplets(record):
    return np.array(record["keypoints"], dtype=float).reshape(-1, 3)


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_labeled_person_is_predicted_once_within_its_box(annotations, baseline):
    before = copy.deepcopy(annotations)
    results = baseline(annotations)
    assert annotations == before
    for result, person in zip(results, labeled_persons(annotations), strict=True):
        assert (result["image_id"], result["category_id"], result["score"]) == (person["image_id"], 1, 1)
        x, y, width, height = person["bbox"]
        # The made coordinates are rounded to a tenth of a pixel.
        assert (triplets(result)[:, :2] >= [x - 0.1, y - 0.1]).all()
        assert (triplets(result)[:, :2] <= [x + width + 0.1, y + height + 0.1]).all()


def test_the_truth_scores_one(annotations):
    metrics = evaluate_keypoints(annotations, truth_results(annotations))
    assert list(metrics.values()) == [1.0] * 10


def test_the_truth_keeps_labeled_keypoints_and_marks_the_others(annotations):
    for result, person in zip(truth_results(annotations), labeled_persons(annotations), strict=True):
        labeled = triplets(person)[:, 2] > 0
        np.testing.assert_array_equal(triplets(result)[labeled, :2], triplets(person)[labeled, :2])
        np.testing.assert_array_equal(triplets(result)[:, 2], labeled)


def test_mirrored_truth_exchanges_left_and_right(annotations):
    swap = list(COCO17.flip_permutation)
    mirrored = mirrored_truth_results(annotations, COCO17)
    for result, straight in zip(mirrored, truth_results(annotations), strict=True):
        np.testing.assert_array_equal(triplets(result), triplets(straight)[swap])
    assert evaluate_keypoints(annotations, mirrored)["AP"] < 0.1


def test_without_pairs_the_mirrored_truth_is_the_truth(annotations):
    unpaired = Skeleton(COCO17.keypoints, (), COCO17.limbs, COCO17.sigmas)
    assert mirrored_truth_results(annotations, unpaired) == truth_results(annotations)


def test_persons_of_one_pose_are_found_by_their_median(annotations):
    rng = np.random.default_rng(0)
    pose = rng.random((17, 2))
    for person in annotations["annotations"]:
        x, y, width, height = person["bbox"]
        points = triplets(person)
        points[:, :2] = np.where(points[:, 2:] > 0, [x, y] + pose * [width, height], 0)
        person["keypoints"] = points.reshape(-1).tolist()
    assert evaluate_keypoints(annotations, median_pose_results(annotations))["AP"] == 1


def test_the_median_is_over_labeled_keypoints_in_box_coordinates(annotations):
    persons = labeled_persons(annotations)
    places = [
        (triplets(person)[3, :2] - person["bbox"][:2]) / person["bbox"][2:]
        for person in persons
        if triplets(person)[3, 2] > 0
    ]
    expected = persons[0]["bbox"][:2] + np.median(places, axis=0) * persons[0]["bbox"][2:]
    np.testing.assert_allclose(triplets(median_pose_results(annotations)[0])[3, :2], expected)


def test_a_keypoint_without_labels_lies_in_the_middle(annotations):
    for person in annotations["annotations"]:
        person["keypoints"][:3] = [0, 0, 0]
    for result, person in zip(median_pose_results(annotations), labeled_persons(annotations), strict=True):
        x, y, width, height = person["bbox"]
        np.testing.assert_allclose(triplets(result)[0, :2], [x + width / 2, y + height / 2])


def test_a_box_without_width_does_not_enter_the_median(annotations):
    flat = labeled_persons(annotations)[0]
    flat["bbox"][2] = 0
    with_flat = median_pose_results(annotations)
    assert (triplets(with_flat[0])[:, 0] == flat["bbox"][0]).all()
    annotations["annotations"].remove(flat)
    assert median_pose_results(annotations) == with_flat[1:]


def test_a_skeleton_of_another_size_is_refused(annotations):
    with pytest.raises(ValueError, match="has 17 keypoints, but the skeleton has 1"):
        mirrored_truth_results(annotations, Skeleton(("nose",), (), (), (0.1,)))


@pytest.mark.parametrize("baseline", BASELINES)
def test_truth_without_labels_is_refused(annotations, baseline):
    annotations["annotations"] = [
        person for person in annotations["annotations"] if person["iscrowd"] or not person["num_keypoints"]
    ]
    with pytest.raises(ValueError, match="no annotation has labeled keypoints"):
        baseline(annotations)
