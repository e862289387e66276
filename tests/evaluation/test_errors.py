"""Made cases whose classes are known: two persons beside each other, one keypoint moved at a time."""

import copy

import numpy as np
import pytest

from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.errors import ERROR_CLASSES, analyze_errors, classify_keypoints
from posedy.evaluation.matching import match_persons
from posedy.skeleton import COCO17
from tools.lab.baselines import mirrored_truth_results, truth_results

NAMES = COCO17.keypoints
LEFT_WRIST, RIGHT_WRIST, NOSE = NAMES.index("left_wrist"), NAMES.index("right_wrist"), NAMES.index("nose")
AREA = 20_000.0


def standing(left):
    """A person's 17 keypoints far from each other, in pixels, from a left edge."""
    return np.array([[left + 30 * (index % 4), 20.0 + 60 * (index // 4)] for index in range(17)])


@pytest.fixture
def two_persons():
    people = []
    for index, left in enumerate((20, 220)):
        keypoints = np.column_stack([standing(left), np.full(17, 2)])
        people.append(
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
    return {"images": images, "annotations": people, "categories": [COCO17.to_coco_category()]}


def moved(annotations, keypoint, place):
    """The truth as results, with one keypoint of the first person elsewhere."""
    results = truth_results(annotations)
    triplets = np.reshape(results[0]["keypoints"], (17, 3)).copy()
    triplets[keypoint, :2] = place
    results[0]["keypoints"] = triplets.reshape(-1).tolist()
    return results


def distance_of(similarity, keypoint):
    """How far a keypoint is from another at a similarity, for the area of these persons."""
    return np.sqrt(-2 * np.log(similarity) * AREA) * 2 * COCO17.sigmas[keypoint]


@pytest.mark.parametrize(
    ("keypoint", "place", "expected"),
    [
        (NOSE, standing(20)[NOSE], "good"),
        (NOSE, standing(20)[NOSE] + [distance_of(0.86, NOSE), 0], "good"),
        (NOSE, standing(20)[NOSE] + [0, distance_of(0.84, NOSE)], "jitter"),
        (NOSE, standing(20)[NOSE] - [distance_of(0.51, NOSE), 0], "jitter"),
        (NOSE, standing(20)[NOSE] - [distance_of(0.49, NOSE), 0], "miss"),
        (LEFT_WRIST, standing(20)[RIGHT_WRIST], "inversion"),
        (LEFT_WRIST, standing(220)[LEFT_WRIST], "swap"),
        (LEFT_WRIST, standing(220)[RIGHT_WRIST], "swap"),
        (LEFT_WRIST, standing(20)[NOSE], "miss"),
        (LEFT_WRIST, [390, 290], "miss"),
    ],
)
def test_made_cases(two_persons, keypoint, place, expected):
    classes = classify_keypoints(match_persons(two_persons, moved(two_persons, keypoint, place)))
    assert ERROR_CLASSES[classes[0, keypoint]] == expected
    others = np.delete(classes[0], keypoint)
    assert (others == ERROR_CLASSES.index("good")).all()
    assert (classes[1] == ERROR_CLASSES.index("good")).all()


def test_a_keypoint_goes_to_the_truth_that_it_is_likest(two_persons):
    """Near its own wrist too (ks 0.6), but on that of the other person."""
    triplets = np.reshape(two_persons["annotations"][1]["keypoints"], (17, 3))
    triplets[LEFT_WRIST, :2] = standing(20)[LEFT_WRIST] + [0, distance_of(0.6, LEFT_WRIST)]
    two_persons["annotations"][1]["keypoints"] = triplets.reshape(-1).tolist()
    results = moved(two_persons, LEFT_WRIST, triplets[LEFT_WRIST, :2])
    classes = classify_keypoints(match_persons(two_persons, results))
    assert ERROR_CLASSES[classes[0, LEFT_WRIST]] == "swap"
    assert ERROR_CLASSES[classes[1, LEFT_WRIST]] == "good"


@pytest.mark.parametrize(
    ("similarity", "name", "before", "after"), [(0.62, "jitter", 0.3, 0.8), (0.3, "miss", 0.0, 0.1)]
)
def test_errors_are_mended_as_far_as_they_go(two_persons, similarity, name, before, after):
    """One person, all keypoints equally far off: AP is the share of the thresholds that the similarity reaches."""
    two_persons["annotations"] = two_persons["annotations"][:1]
    distances = np.array([distance_of(similarity, keypoint) for keypoint in range(17)])
    results = truth_results(two_persons)
    triplets = np.reshape(results[0]["keypoints"], (17, 3)).copy()
    triplets[:, 1] -= np.where(np.arange(17) < 4, distances, 0)  # only the highest, where no other truth is near
    triplets[4:, 0] -= distances[4:]
    results[0]["keypoints"] = triplets.reshape(-1).tolist()
    for person in two_persons["annotations"]:  # what is likelier another one is not labeled
        labeled = np.reshape(person["keypoints"], (17, 3))
        labeled[4:, 2] = 0
        person |= {"keypoints": labeled.reshape(-1).tolist(), "num_keypoints": 4}
    analysis = analyze_errors(two_persons, results)
    assert analysis.counts.sum(axis=0).tolist() == [4 * (name == each) for each in ERROR_CLASSES]
    assert analysis.ap == pytest.approx(before, abs=1e-6)
    assert analysis.ap_without[name] == analysis.ap_without["all"] == pytest.approx(after, abs=1e-6)


def test_a_swap_keeps_its_similarity_at_its_own_place(two_persons):
    """A wrist with ks 0.2 to its own truth, 0.72 to the other person's; of the first the nose alone is labeled too."""
    first, second = two_persons["annotations"]
    own = standing(20)[LEFT_WRIST]
    place = own + np.array([0, distance_of(0.2, LEFT_WRIST)])
    triplets = np.column_stack([standing(20), np.isin(np.arange(17), [NOSE, LEFT_WRIST])])
    first |= {"keypoints": triplets.reshape(-1).tolist(), "num_keypoints": 2}
    triplets = np.column_stack([standing(220), np.full(17, 2)])
    triplets[LEFT_WRIST, :2] = place + np.array([0, distance_of(0.72, LEFT_WRIST)])
    second["keypoints"] = triplets.reshape(-1).tolist()
    analysis = analyze_errors(two_persons, moved(two_persons, LEFT_WRIST, place))
    assert ERROR_CLASSES[analysis.classes[0, LEFT_WRIST]] == "swap"
    nearer = moved(two_persons, LEFT_WRIST, own + np.array([0, distance_of(0.72, LEFT_WRIST)]))
    assert analysis.ap_without["swap"] == evaluate_keypoints(two_persons, nearer)["AP"]
    assert analysis.costs["swap"] > 0.1


def test_unlabeled_keypoints_are_neither_judged_nor_taken_for_others(two_persons):
    triplets = np.reshape(two_persons["annotations"][0]["keypoints"], (17, 3))
    place = triplets[RIGHT_WRIST, :2].copy()
    triplets[RIGHT_WRIST] = 0
    two_persons["annotations"][0] |= {"keypoints": triplets.reshape(-1).tolist(), "num_keypoints": 16}
    classes = classify_keypoints(match_persons(two_persons, moved(two_persons, LEFT_WRIST, place)))
    assert classes[0, RIGHT_WRIST] == -1
    assert ERROR_CLASSES[classes[0, LEFT_WRIST]] == "miss"


def test_exchanged_sides_are_inversions_and_cost_what_they_cost(two_persons):
    results = mirrored_truth_results(two_persons, COCO17)
    analysis = analyze_errors(two_persons, results)
    counts = dict(zip(ERROR_CLASSES, analysis.counts.sum(axis=0).tolist(), strict=True))
    # 8 pairs, two of which are near enough to each other here to be jitter at worst
    assert counts["inversion"] + counts["jitter"] + counts["good"] == 34
    assert counts["inversion"] >= 24
    assert analysis.ap == evaluate_keypoints(two_persons, results)["AP"]
    assert analysis.costs["inversion"] == pytest.approx(analysis.ap_without["inversion"] - analysis.ap)
    assert analysis.ap_without["all"] == pytest.approx(1)
    assert analysis.costs["swap"] == analysis.costs["miss"] == 0
    assert analysis.costs["inversion"] > 0.5


def test_each_class_costs_something_where_all_are_mixed(annotations, noised_results):
    before = copy.deepcopy(noised_results)
    analysis = analyze_errors(annotations, noised_results)
    assert noised_results == before
    assert analysis.costs["miss"] > 0
    assert analysis.costs["jitter"] > 0
    assert all(cost >= -0.02 for cost in analysis.costs.values())
    assert analysis.costs["all"] >= max(analysis.costs.values()) - 0.02
    judged = (analysis.classes >= 0).sum()
    assert judged == analysis.counts.sum() == (analysis.persons.labeled & analysis.persons.found[:, None]).sum()
