import copy

import numpy as np
import pytest

from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.skeleton import COCO17, Skeleton
from tools.lab.baselines import ground_truth_results, median_pose_results, swapped_sides_results

BASELINES = [ground_truth_results, median_pose_results, lambda annotations: swapped_sides_results(annotations, COCO17)]


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
        # the coordinates are rounded to a tenth of a pixel
        assert (triplets(result)[:, :2] >= [x - 0.1, y - 0.1]).all()
        assert (triplets(result)[:, :2] <= [x + width + 0.1, y + height + 0.1]).all()


def test_ground_truth_has_ap_one(annotations):
    metrics = evaluate_keypoints(annotations, ground_truth_results(annotations))
    assert list(metrics.values()) == [1.0] * 10


def test_ground_truth_keeps_labeled_keypoints_and_scores_others_zero(annotations):
    for result, person in zip(ground_truth_results(annotations), labeled_persons(annotations), strict=True):
        labeled = triplets(person)[:, 2] > 0
        np.testing.assert_array_equal(triplets(result)[labeled, :2], triplets(person)[labeled, :2])
        np.testing.assert_array_equal(triplets(result)[:, 2], labeled)


def test_swapped_sides_exchange_left_and_right(annotations):
    permutation = list(COCO17.flip_permutation)
    swapped = swapped_sides_results(annotations, COCO17)
    for result, original in zip(swapped, ground_truth_results(annotations), strict=True):
        np.testing.assert_array_equal(triplets(result), triplets(original)[permutation])
    assert evaluate_keypoints(annotations, swapped)["AP"] < 0.1


def test_swapped_sides_without_pairs_equal_ground_truth(annotations):
    unpaired = Skeleton(COCO17.keypoints, (), COCO17.limbs, COCO17.sigmas)
    assert swapped_sides_results(annotations, unpaired) == ground_truth_results(annotations)


def test_median_pose_has_ap_one_for_persons_of_equal_pose(annotations):
    rng = np.random.default_rng(0)
    pose = rng.random((17, 2))
    for person in annotations["annotations"]:
        x, y, width, height = person["bbox"]
        points = triplets(person)
        points[:, :2] = np.where(points[:, 2:] > 0, [x, y] + pose * [width, height], 0)
        person["keypoints"] = points.reshape(-1).tolist()
    assert evaluate_keypoints(annotations, median_pose_results(annotations))["AP"] == 1


def test_median_is_over_labeled_keypoints_in_box_coordinates(annotations):
    persons = labeled_persons(annotations)
    relative = [
        (triplets(person)[3, :2] - person["bbox"][:2]) / person["bbox"][2:]
        for person in persons
        if triplets(person)[3, 2] > 0
    ]
    expected = persons[0]["bbox"][:2] + np.median(relative, axis=0) * persons[0]["bbox"][2:]
    np.testing.assert_allclose(triplets(median_pose_results(annotations)[0])[3, :2], expected)


def test_unlabeled_keypoint_is_at_the_box_center(annotations):
    for person in annotations["annotations"]:
        person["keypoints"][:3] = [0, 0, 0]
    for result, person in zip(median_pose_results(annotations), labeled_persons(annotations), strict=True):
        x, y, width, height = person["bbox"]
        np.testing.assert_allclose(triplets(result)[0, :2], [x + width / 2, y + height / 2])


def test_median_excludes_boxes_without_width(annotations):
    flat = labeled_persons(annotations)[0]
    flat["bbox"][2] = 0
    with_flat = median_pose_results(annotations)
    assert (triplets(with_flat[0])[:, 0] == flat["bbox"][0]).all()
    annotations["annotations"].remove(flat)
    assert median_pose_results(annotations) == with_flat[1:]


def test_skeleton_of_another_size_is_rejected(annotations):
    with pytest.raises(ValueError, match="has 17 keypoints, but the skeleton has 1"):
        swapped_sides_results(annotations, Skeleton(("nose",), (), (), (0.1,)))


@pytest.mark.parametrize("baseline", BASELINES)
def test_ground_truth_without_labels_is_rejected(annotations, baseline):
    annotations["annotations"] = [
        person for person in annotations["annotations"] if person["iscrowd"] or not person["num_keypoints"]
    ]
    with pytest.raises(ValueError, match="no annotation has labeled keypoints"):
        baseline(annotations)
