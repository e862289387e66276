"""Constructed cases of known error classes: two persons side by side, one keypoint moved at a time."""

import copy

import numpy as np
import pytest

from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.errors import ERROR_CLASSES, analyze_errors
from posedy.skeleton import COCO17
from tools.lab.baselines import ground_truth_results, swapped_sides_results

NAMES = COCO17.keypoints
LEFT_WRIST, RIGHT_WRIST, NOSE = NAMES.index("left_wrist"), NAMES.index("right_wrist"), NAMES.index("nose")
AREA = 20_000.0


def make_person(left):
    """Returns 17 keypoints (17, 2) far from each other, in pixels, from a left edge."""
    return np.array([[left + 30 * (index % 4), 20.0 + 60 * (index // 4)] for index in range(17)])


@pytest.fixture
def two_persons():
    persons = []
    for index, left in enumerate((20, 220)):
        keypoints = np.column_stack([make_person(left), np.full(17, 2)])
        persons.append(
            {
                "id": index + 1,
                "image_id": 7,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [left, 20.0, 90.0, 240.0],
                "area": AREA,
                "keypoints": keypoints.reshape(-1).tolist(),
                "num_keypoints": 17,
            }
        )
    images = [{"id": 7, "width": 400, "height": 300, "file_name": "7.jpg"}]
    return {"images": images, "annotations": persons, "categories": [COCO17.to_coco_category()]}


def move_keypoint(annotations, keypoint, position):
    """Returns ground-truth results with one keypoint of the first person moved to a position."""
    results = ground_truth_results(annotations)
    triplets = np.reshape(results[0]["keypoints"], (17, 3)).copy()
    triplets[keypoint, :2] = position
    results[0]["keypoints"] = triplets.reshape(-1).tolist()
    return results


def distance_at(similarity, keypoint):
    """Returns the distance at which a keypoint has a similarity, for the area of these persons."""
    return np.sqrt(-2 * np.log(similarity) * AREA) * 2 * COCO17.sigmas[keypoint]


@pytest.mark.parametrize(
    ("keypoint", "position", "expected"),
    [
        (NOSE, make_person(20)[NOSE], "good"),
        (NOSE, make_person(20)[NOSE] + [distance_at(0.86, NOSE), 0], "good"),
        (NOSE, make_person(20)[NOSE] + [0, distance_at(0.84, NOSE)], "jitter"),
        (NOSE, make_person(20)[NOSE] - [distance_at(0.51, NOSE), 0], "jitter"),
        (NOSE, make_person(20)[NOSE] - [distance_at(0.49, NOSE), 0], "miss"),
        (LEFT_WRIST, make_person(20)[RIGHT_WRIST], "inversion"),
        (LEFT_WRIST, make_person(220)[LEFT_WRIST], "swap"),
        (LEFT_WRIST, make_person(220)[RIGHT_WRIST], "swap"),
        (LEFT_WRIST, make_person(20)[NOSE], "miss"),
        (LEFT_WRIST, [390, 290], "miss"),
    ],
)
def test_moved_keypoint_has_the_expected_class(two_persons, keypoint, position, expected):
    classes = analyze_errors(two_persons, move_keypoint(two_persons, keypoint, position)).classes
    assert ERROR_CLASSES[classes[0, keypoint]] == expected
    others = np.delete(classes[0], keypoint)
    assert (others == ERROR_CLASSES.index("good")).all()
    assert (classes[1] == ERROR_CLASSES.index("good")).all()


def test_class_follows_the_most_similar_ground_truth(two_persons):
    """The prediction is near its own wrist too (ks 0.6), but equals that of the other person."""
    triplets = np.reshape(two_persons["annotations"][1]["keypoints"], (17, 3))
    triplets[LEFT_WRIST, :2] = make_person(20)[LEFT_WRIST] + [0, distance_at(0.6, LEFT_WRIST)]
    two_persons["annotations"][1]["keypoints"] = triplets.reshape(-1).tolist()
    results = move_keypoint(two_persons, LEFT_WRIST, triplets[LEFT_WRIST, :2])
    classes = analyze_errors(two_persons, results).classes
    assert ERROR_CLASSES[classes[0, LEFT_WRIST]] == "swap"
    assert ERROR_CLASSES[classes[1, LEFT_WRIST]] == "good"


@pytest.mark.parametrize(
    ("similarity", "name", "before", "after"), [(0.62, "jitter", 0.3, 0.8), (0.3, "miss", 0.0, 0.1)]
)
def test_errors_are_corrected_to_their_class_threshold(two_persons, similarity, name, before, after):
    """With equal similarity of all keypoints of one person, AP is the fraction of thresholds below it."""
    two_persons["annotations"] = two_persons["annotations"][:1]
    distances = np.array([distance_at(similarity, keypoint) for keypoint in range(17)])
    results = ground_truth_results(two_persons)
    triplets = np.reshape(results[0]["keypoints"], (17, 3)).copy()
    triplets[:, 1] -= np.where(np.arange(17) < 4, distances, 0)  # the top row, which is far from other keypoints
    triplets[4:, 0] -= distances[4:]
    results[0]["keypoints"] = triplets.reshape(-1).tolist()
    for person in two_persons["annotations"]:  # keypoints nearer to others are not labeled
        labeled = np.reshape(person["keypoints"], (17, 3))
        labeled[4:, 2] = 0
        person |= {"keypoints": labeled.reshape(-1).tolist(), "num_keypoints": 4}
    analysis = analyze_errors(two_persons, results)
    assert analysis.counts.sum(axis=0).tolist() == [4 * (name == each) for each in ERROR_CLASSES]
    assert analysis.ap == pytest.approx(before, abs=1e-6)
    assert analysis.ap_corrected[name] == analysis.ap_corrected["all"] == pytest.approx(after, abs=1e-6)


def test_corrected_swap_keeps_its_highest_similarity(two_persons):
    """A wrist with ks 0.2 to its own ground truth and 0.72 to the other's; the first person also has a labeled nose."""
    first, second = two_persons["annotations"]
    own = make_person(20)[LEFT_WRIST]
    position = own + np.array([0, distance_at(0.2, LEFT_WRIST)])
    triplets = np.column_stack([make_person(20), np.isin(np.arange(17), [NOSE, LEFT_WRIST])])
    first |= {"keypoints": triplets.reshape(-1).tolist(), "num_keypoints": 2}
    triplets = np.column_stack([make_person(220), np.full(17, 2)])
    triplets[LEFT_WRIST, :2] = position + np.array([0, distance_at(0.72, LEFT_WRIST)])
    second["keypoints"] = triplets.reshape(-1).tolist()
    analysis = analyze_errors(two_persons, move_keypoint(two_persons, LEFT_WRIST, position))
    assert ERROR_CLASSES[analysis.classes[0, LEFT_WRIST]] == "swap"
    nearer = move_keypoint(two_persons, LEFT_WRIST, own + np.array([0, distance_at(0.72, LEFT_WRIST)]))
    assert analysis.ap_corrected["swap"] == evaluate_keypoints(two_persons, nearer)["AP"]
    assert analysis.ap_costs["swap"] > 0.1


def test_unlabeled_keypoints_are_neither_classified_nor_compared(two_persons):
    triplets = np.reshape(two_persons["annotations"][0]["keypoints"], (17, 3))
    position = triplets[RIGHT_WRIST, :2].copy()
    triplets[RIGHT_WRIST] = 0
    two_persons["annotations"][0] |= {"keypoints": triplets.reshape(-1).tolist(), "num_keypoints": 16}
    classes = analyze_errors(two_persons, move_keypoint(two_persons, LEFT_WRIST, position)).classes
    assert classes[0, RIGHT_WRIST] == -1
    assert ERROR_CLASSES[classes[0, LEFT_WRIST]] == "miss"


def test_swapped_sides_are_inversions(two_persons):
    results = swapped_sides_results(two_persons, COCO17)
    analysis = analyze_errors(two_persons, results)
    counts = dict(zip(ERROR_CLASSES, analysis.counts.sum(axis=0).tolist(), strict=True))
    # 8 pairs; the sides of two are close enough to be jitter at worst
    assert counts["inversion"] + counts["jitter"] + counts["good"] == 34
    assert counts["inversion"] >= 24
    assert analysis.ap == evaluate_keypoints(two_persons, results)["AP"]
    assert analysis.ap_costs["inversion"] == pytest.approx(analysis.ap_corrected["inversion"] - analysis.ap)
    assert analysis.ap_corrected["all"] == pytest.approx(1)
    assert analysis.ap_costs["swap"] == analysis.ap_costs["miss"] == 0
    assert analysis.ap_costs["inversion"] > 0.5


def test_noisy_results_have_costs_in_several_classes(annotations, noised_results):
    before = copy.deepcopy(noised_results)
    analysis = analyze_errors(annotations, noised_results)
    assert noised_results == before
    assert analysis.ap_costs["miss"] > 0
    assert analysis.ap_costs["jitter"] > 0
    assert all(cost >= -0.02 for cost in analysis.ap_costs.values())
    assert analysis.ap_costs["all"] >= max(analysis.ap_costs.values()) - 0.02
    classified = (analysis.classes >= 0).sum()
    assert classified == analysis.counts.sum() == (analysis.persons.labeled & analysis.persons.matched[:, None]).sum()
