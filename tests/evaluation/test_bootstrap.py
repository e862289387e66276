import copy
import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from posedy.evaluation.bootstrap import (
    MeanMetrics,
    WeightedMetrics,
    bootstrap_difference,
    bootstrap_intervals,
    paired_difference,
)
from posedy.evaluation.coco_eval import METRIC_NAMES, evaluate_keypoints, match_results
from posedy.poses import to_coco_results
from posedy.skeleton import COCO17


def make_scores_distinct(results):
    """Removes ties of scores, whose order across images COCOeval does not define."""
    return [{**result, "score": result["score"] + 1e-6 * index} for index, result in enumerate(results)]


def repeat_images(evaluation, weights):
    """Computes COCOeval metrics with each image repeated as often as its weight."""
    copied = copy.copy(evaluation)
    copied.params = copy.deepcopy(evaluation.params)
    count = len(evaluation.params.imgIds)
    sampled = np.repeat(np.arange(count), weights)
    copied.evalImgs = [
        evaluation.evalImgs[size * count + image] for size in range(len(evaluation.params.areaRng)) for image in sampled
    ]
    copied.params.imgIds = list(range(len(sampled)))
    copied._paramsEval = copied.params
    with redirect_stdout(io.StringIO()):
        copied.accumulate()
        copied.summarize()
    return [math.nan if value == -1 else value for value in copied.stats]


def test_metrics_with_unit_weights_equal_cocoeval(annotations, noised_results):
    metrics = WeightedMetrics(match_results(annotations, noised_results))
    expected = evaluate_keypoints(annotations, noised_results)
    assert metrics(np.ones(12, dtype=np.int64)) == pytest.approx(expected, abs=1e-12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=3, deadline=None)
@given(weights=st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_weighted_metrics_equal_cocoeval_with_repeated_images(annotations, noised_results, weights):
    evaluation = match_results(annotations, make_scores_distinct(noised_results))
    weights = np.array(weights)
    if not weights[:-1].any():  # the last image has no persons
        return
    metrics = WeightedMetrics(evaluation)(weights)
    np.testing.assert_allclose(list(metrics.values()), repeat_images(evaluation, weights), atol=1e-12)


def test_metrics_without_persons_are_nan(annotations, noised_results):
    metrics = WeightedMetrics(match_results(annotations, noised_results))
    assert all(math.isnan(value) for value in metrics(np.eye(12, dtype=np.int64)[-1]).values())


def test_persons_without_results_count_as_missed(annotations, noised_results):
    metrics = WeightedMetrics(match_results(annotations, noised_results))
    assert metrics(np.eye(12, dtype=np.int64)[1])["AP"] == 0  # image 20 has persons and no result
    assert WeightedMetrics(match_results(annotations, []))(np.ones(12, dtype=np.int64))["AR"] == 0


def test_the_difference_of_groups_is_that_of_their_means(annotations, noised_results):
    fewer = noised_results[::2]
    both = MeanMetrics([WeightedMetrics(match_results(annotations, each)) for each in (noised_results, fewer)])
    alone = WeightedMetrics(match_results(annotations, noised_results))
    weights = np.arange(12)
    half = {name: value / 2 for name, value in WeightedMetrics(match_results(annotations, fewer))(weights).items()}
    expected = {name: half[name] + value / 2 for name, value in alone(weights).items()}
    assert both(weights) == pytest.approx(expected, nan_ok=True)
    gain, interval = paired_difference(alone, both, resamples=50)["AR"]
    assert interval.low <= gain <= interval.high < 0
    assert paired_difference(both, both, resamples=5)["AP"][0] == 0


def test_groups_are_of_the_same_images(annotations, noised_results):
    every, detected = (
        WeightedMetrics(match_results(annotations, noised_results[:3], images)) for images in ("all", "detected")
    )
    with pytest.raises(ValueError, match=r"expected results on the same images, got \[12, \d+\] images"):
        MeanMetrics([every, detected])


def test_intervals_contain_the_metrics_and_depend_on_the_seed(annotations, noised_results):
    metrics = evaluate_keypoints(annotations, noised_results)
    intervals = bootstrap_intervals(annotations, noised_results, resamples=150)
    assert tuple(intervals) == METRIC_NAMES
    for name in METRIC_NAMES:
        assert intervals[name].low < metrics[name] < intervals[name].high
    assert bootstrap_intervals(annotations, noised_results, resamples=150) == intervals
    assert bootstrap_intervals(annotations, noised_results, resamples=150, seed=1) != intervals


class ShareDetected:
    """Metrics of images of one person each: the share of those that are detected."""

    def __init__(self, detected):
        self.num_images, self.detected = len(detected), detected

    def __call__(self, weights):
        return dict.fromkeys(METRIC_NAMES, (weights * self.detected).sum() / weights.sum())


def test_interval_has_the_quantiles_of_95_percent():
    """The share of a resample of n images, to none of another result, is binomial."""
    first, second = ShareDetected(np.zeros(40)), ShareDetected(np.arange(40) < 16)
    difference, interval = paired_difference(first, second, resamples=4000)["AP"]
    assert difference == pytest.approx(16 / 40)
    expected = binom.ppf([0.025, 0.975], 40, 16 / 40) / 40
    assert [interval.low, interval.high] == pytest.approx(expected)
    narrower = binom.ppf([0.05, 0.95], 40, 16 / 40) / 40
    assert interval.low < narrower[0] < narrower[1] < interval.high


@pytest.mark.slow
def test_interval_has_its_nominal_coverage():
    """Each of 40 images has one person, detected with probability 0.5, so AR is the mean of a Bernoulli variable."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        annotations, results = make_one_person_per_image(rng.random(40) < 0.5)
        interval = bootstrap_intervals(annotations, results, resamples=200, seed=trial)["AR"]
        covered += interval.low <= 0.5 <= interval.high
    assert 50 <= covered <= 60  # 57 expected; fewer than 50 has a probability under 0.001


def make_one_person_per_image(detected):
    keypoints = np.random.default_rng(1).uniform(20, 80, (17, 2))
    images = [{"id": index + 1, "width": 100, "height": 100, "file_name": "x.jpg"} for index in range(len(detected))]
    persons = [
        {
            "id": image["id"],
            "image_id": image["id"],
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [20.0, 20.0, 60.0, 60.0],
            "area": 3000.0,
            "keypoints": np.column_stack([keypoints, np.full(17, 2)]).reshape(-1).tolist(),
            "num_keypoints": 17,
        }
        for image in images
    ]
    results = []
    for image, is_detected in zip(images, detected, strict=True):
        if is_detected:
            results += to_coco_results(image["id"], keypoints[None], np.ones((1, 17)), np.ones(1), 1)
    return {"images": images, "annotations": persons, "categories": [COCO17.to_coco_category()]}, results


def test_difference_of_equal_results_is_zero(annotations, noised_results):
    for difference, interval in bootstrap_difference(
        annotations, (noised_results, noised_results), resamples=50
    ).values():
        assert difference == interval.low == interval.high == 0


def test_difference_to_noisier_results_is_negative(annotations, noised_results):
    rng = np.random.default_rng(2)
    worse = copy.deepcopy(noised_results)
    for result in worse:
        keypoints = np.array(result["keypoints"]).reshape(17, 3)
        keypoints[:, :2] += rng.normal(0, 12, (17, 2))
        result["keypoints"] = keypoints.reshape(-1).tolist()
    difference, interval = bootstrap_difference(annotations, (noised_results, worse), resamples=200)["AP"]
    expected = evaluate_keypoints(annotations, worse)["AP"] - evaluate_keypoints(annotations, noised_results)["AP"]
    assert difference == pytest.approx(expected, abs=1e-12)
    assert interval.low < difference < interval.high < 0


def test_no_resamples_and_different_images_are_rejected(annotations, noised_results):
    with pytest.raises(ValueError, match="got 0"):
        bootstrap_intervals(annotations, noised_results, resamples=0)
    fewer = [result for result in noised_results if result["image_id"] != 40]
    with pytest.raises(ValueError, match=r"different images \(9 and 8\)"):
        bootstrap_difference(annotations, (noised_results, fewer), images="detected")


def test_few_images_warn_and_undefined_resamples_are_reported(annotations, noised_results):
    one = annotations["images"][0]["id"]
    with pytest.warns(UserWarning, match="1 image are too narrow"):
        alone = bootstrap_intervals(annotations, noised_results, images=[one], resamples=20)["AP"]
    assert alone.low == alone.high
    areas = iter(range(len(annotations["annotations"])))
    # one large person only: a resample misses it with probability (11/12)^12 = 0.35
    for person in annotations["annotations"]:
        person["area"] = 200.0**2 if next(areas) == 0 else 50.0**2
    intervals = bootstrap_intervals(annotations, noised_results, resamples=800)
    assert intervals["APl"].undefined == pytest.approx((11 / 12) ** 12, abs=0.05)
    assert intervals["AP"].undefined == intervals["APm"].undefined == 0
