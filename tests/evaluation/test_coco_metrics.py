import copy
import io
import json
import math
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posedy.data.coco import GroundTruth
from posedy.data.coco_results import read_results
from posedy.evaluation.coco_eval import (
    METRIC_NAMES,
    evaluate_keypoints,
    evaluated_images,
    format_metrics,
    metrics_to_json,
)
from tools.lab.baselines import ground_truth_results


def pycocotools_metrics(annotations, results, images=None, sigmas=None):
    """The ten metrics computed with pycocotools only."""
    with redirect_stdout(io.StringIO()):
        coco_gt = COCO()
        coco_gt.dataset = copy.deepcopy(annotations)
        coco_gt.createIndex()
        evaluation = COCOeval(coco_gt, coco_gt.loadRes(copy.deepcopy(results)), "keypoints")
        if images is not None:
            evaluation.params.imgIds = images
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [math.nan if value == -1 else value for value in evaluation.stats]


def add_boxes(results):
    return [{**result, "bbox": [5.0, 6.0, 30.0 + 10 * i, 60.0]} for i, result in enumerate(results)]


def test_metrics_equal_pycocotools(annotations, noised_results):
    metrics = evaluate_keypoints(annotations, noised_results)
    assert tuple(metrics) == METRIC_NAMES
    assert list(metrics.values()) == pycocotools_metrics(annotations, noised_results)
    assert 0.05 < metrics["AP"] < 0.95
    assert len(set(metrics.values())) > 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_metrics_equal_pycocotools_for_random_results_and_images(annotations, noised_results, seed):
    rng = np.random.default_rng(seed)
    selected = [result for result in noised_results if rng.random() < 0.5] or noised_results[:1]
    images = [10, *(int(i) for i in rng.permutation(range(20, 130, 10))[:4])]
    expected = pycocotools_metrics(annotations, selected, images)
    np.testing.assert_array_equal(list(evaluate_keypoints(annotations, selected, images).values()), expected)


def test_result_boxes_are_used_as_in_pycocotools(annotations, noised_results):
    boxed = add_boxes(noised_results)
    assert list(evaluate_keypoints(annotations, boxed).values()) == pycocotools_metrics(annotations, boxed)
    # pycocotools checks only the first result for a box and fails if another has none
    partly = [noised_results[0], *boxed[1:]]
    expected = pycocotools_metrics(annotations, partly)
    assert list(evaluate_keypoints(annotations, partly).values()) == expected
    assert list(evaluate_keypoints(annotations, [*boxed[:1], *noised_results[1:]]).values()) == expected


def test_extra_result_keys_are_ignored(annotations, noised_results):
    extra = {"caption": "x", "segmentation": [], "area": 5, "id": 3, "iscrowd": 1, "bbox": None, "center": [1, 2]}
    expected = evaluate_keypoints(annotations, noised_results)
    assert evaluate_keypoints(annotations, [{**result, **extra} for result in noised_results]) == expected


def test_detected_evaluates_only_images_with_results(annotations, noised_results):
    images = evaluated_images(annotations, noised_results, "detected")
    assert set(images) == {result["image_id"] for result in noised_results}
    assert set(evaluated_images(annotations, noised_results)) - set(images) == {20, 30, 120}
    metrics = evaluate_keypoints(annotations, noised_results, "detected")
    assert list(metrics.values()) == pycocotools_metrics(annotations, noised_results, images)
    assert metrics["AP"] > evaluate_keypoints(annotations, noised_results)["AP"]


def test_annotations_are_accepted_as_file_content_or_ground_truth(annotations, noised_results, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations))
    expected = evaluate_keypoints(annotations, noised_results)
    gt = GroundTruth.from_coco(path)
    before = copy.deepcopy(gt)
    assert evaluate_keypoints(path, noised_results) == evaluate_keypoints(str(path), noised_results) == expected
    assert evaluate_keypoints(gt, noised_results) == expected
    assert gt == before


def test_inputs_are_not_modified_and_nothing_is_printed(annotations, noised_results, capsys):
    before = copy.deepcopy((annotations, noised_results))
    evaluate_keypoints(annotations, noised_results)
    assert (annotations, noised_results) == before
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("count", [5, 17])
def test_sigmas_default_to_the_category(annotations, noised_results, count):
    sigmas = [0.03 + 0.01 * k for k in range(count)]
    annotations["categories"][0] = {
        "id": 1,
        "name": "animal",
        "keypoints": [f"point {k}" for k in range(count)],
        "sigmas": sigmas,
    }
    for record in (*annotations["annotations"], *noised_results):
        record["keypoints"] = record["keypoints"][: 3 * count]
    for person in annotations["annotations"]:
        person["num_keypoints"] = sum(visibility > 0 for visibility in person["keypoints"][2::3])
    metrics = evaluate_keypoints(annotations, noised_results)
    assert list(metrics.values()) == pycocotools_metrics(annotations, noised_results, sigmas=sigmas)
    doubled = evaluate_keypoints(annotations, noised_results, sigmas=[2 * sigma for sigma in sigmas])
    assert doubled["AP"] > metrics["AP"]


@pytest.mark.parametrize("sigmas", [[0.1] * 16, [0.0] * 17, [math.nan] * 17])
def test_invalid_sigmas_are_rejected(annotations, noised_results, sigmas):
    with pytest.raises(ValueError, match="expected 17 positive numbers"):
        evaluate_keypoints(annotations, noised_results, sigmas=sigmas)


def test_ap_is_zero_without_results(annotations):
    assert evaluate_keypoints(annotations, []) == dict.fromkeys(METRIC_NAMES, 0.0)
    with pytest.raises(ValueError, match="at least one result"):
        evaluate_keypoints(annotations, [], "detected")


def test_size_class_without_ground_truth_is_nan(annotations):
    for person in annotations["annotations"]:
        person["area"] = 40.0**2
    metrics = evaluate_keypoints(annotations, ground_truth_results(annotations))
    assert math.isnan(metrics["APl"])
    assert math.isnan(metrics["ARl"])
    assert metrics["APm"] == metrics["AP"] == 1


def test_annotation_ids_are_arbitrary(annotations, noised_results):
    # pycocotools treats annotation id 0 as unmatched and drops one of two annotations with the same id
    expected = evaluate_keypoints(annotations, noised_results)
    for index, person in enumerate(annotations["annotations"]):
        person["id"] = index // 2
    assert evaluate_keypoints(annotations, noised_results) == expected


def test_image_ids_may_be_strings(annotations, noised_results):
    expected = evaluate_keypoints(annotations, noised_results)
    for record in annotations["images"]:
        record["id"] = f"{record['id']:06d}"
    for record in (*annotations["annotations"], *noised_results):
        record["image_id"] = f"{record['image_id']:06d}"
    assert evaluate_keypoints(annotations, noised_results) == expected


def test_results_of_unknown_images_are_rejected(annotations, noised_results):
    unknown = [{**noised_results[0], "image_id": 1_000_001 + index} for index in range(8)]
    with pytest.raises(ValueError, match=r"8 image ids .* 1000001, .* \(8 in all\)"):
        evaluate_keypoints(annotations, [*noised_results, *unknown])
    with pytest.raises(
        ValueError, match=r"1 image ids .*annotations: '10'.* text in one file and numbers in the other"
    ):
        evaluate_keypoints(annotations, [{**noised_results[0], "image_id": "10"}])
    with pytest.raises(ValueError, match=r"annotations: 'a.jpg'; do both belong to the same dataset\?$"):
        evaluate_keypoints(annotations, [{**noised_results[0], "image_id": "a.jpg"}])


def test_results_of_unknown_categories_are_rejected_and_of_others_ignored(annotations, noised_results):
    expected = evaluate_keypoints(annotations, noised_results)
    foreign = {**noised_results[0], "category_id": 2, "score": 1.0}
    with pytest.raises(ValueError, match=r"category_id 1 .*annotations, got 2"):
        evaluate_keypoints(annotations, [*noised_results, foreign])
    annotations["categories"].append({"id": 2, "name": "dog"})
    assert evaluate_keypoints(annotations, [*noised_results, foreign]) == expected
    with pytest.raises(ValueError, match=r"category_id 1 .*got 2"):
        evaluate_keypoints(annotations, [foreign])


def test_undefined_ap_is_rejected(annotations, noised_results):
    with pytest.raises(ValueError, match=r"undefined .*1 evaluated images"):
        evaluate_keypoints(annotations, noised_results, [120])
    for person in annotations["annotations"]:
        person["num_keypoints"] = 0
    with pytest.raises(ValueError, match=r"undefined .*12 evaluated images"):
        evaluate_keypoints(annotations, noised_results)


@pytest.mark.parametrize(
    ("images", "message"),
    [("some", "'some'"), ([], "at least one image id"), ([10, 5, 6], "5, 6")],
)
def test_invalid_images_are_rejected(annotations, noised_results, images, message):
    with pytest.raises(ValueError, match=message):
        evaluate_keypoints(annotations, noised_results, images)


def test_results_with_wrong_number_of_keypoints_are_rejected(annotations, noised_results):
    with pytest.raises(ValueError, match=r"entry 0: keypoints .*51 finite numbers"):
        evaluate_keypoints(annotations, [{**noised_results[0], "keypoints": [1, 2, 3] * 21}])


def test_undefined_metrics_are_null_in_json():
    metrics = {"AP": np.float64(0.5), "APl": math.nan}
    assert json.dumps(metrics_to_json(metrics), allow_nan=False) == '{"AP": 0.5, "APl": null}'


def test_table_contains_protocol():
    metrics = {name: 0.1234 * index / 2 for index, name in enumerate(METRIC_NAMES)} | {"APl": math.nan}
    protocol, names, values = format_metrics(metrics, "ground-truth boxes, no flip, 12 images").splitlines()
    assert protocol == "ground-truth boxes, no flip, 12 images"
    assert names.split() == list(METRIC_NAMES)
    assert values.split() == ["0.000", "0.062", "0.123", "0.185", "-", "0.308", "0.370", "0.432", "0.494", "0.555"]
    with pytest.raises(ValueError, match="protocol"):
        format_metrics(metrics, " ")
    with pytest.raises(ValueError, match=r"lack \['AP75'\]"):
        format_metrics({name: 0.0 for name in METRIC_NAMES if name != "AP75"}, "12 images")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_hotcoco_equals_pycocotools(annotations, noised_results, seed):
    pytest.importorskip("hotcoco")
    rng = np.random.default_rng(seed)
    selected = [result for result in noised_results if rng.random() < 0.7]
    images = [10, *(int(i) for i in rng.permutation(range(20, 130, 10))[:6])]
    sigmas = rng.uniform(0.02, 0.1, 17).tolist()
    for results in (selected, add_boxes(selected), selected[:0]):
        expected = evaluate_keypoints(annotations, results, images, sigmas)
        metrics = evaluate_keypoints(annotations, results, images, sigmas, backend="hotcoco")
        assert metrics == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    "category",
    [{"skeleton": [["nose", "left_eye"]]}, {"skeleton": "none"}, {"name": None}, {"id": "person"}, {"id": -1}],
)
@pytest.mark.filterwarnings("ignore")
def test_hotcoco_takes_the_categories_of_pycocotools(annotations, noised_results, category):
    pytest.importorskip("hotcoco")
    number = category.get("id", 1)
    content = {**annotations, "categories": [{**annotations["categories"][0], **category}]}
    content["annotations"] = [{**record, "category_id": number} for record in annotations["annotations"]]
    results = [{**result, "category_id": number} for result in noised_results]
    expected = evaluate_keypoints(content, results)
    assert evaluate_keypoints(content, results, backend="hotcoco") == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_missing_backend_is_rejected(annotations, noised_results, monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ValueError, match=r"pip install 'posedy\[fast\]'"):
        evaluate_keypoints(annotations, noised_results, backend="hotcoco")


@pytest.mark.realdata
@pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
@pytest.mark.parametrize(
    ("name", "gt", "results", "images"),
    [
        ("fakekeypoints100", "fakekeypoints100_gt", "fakekeypoints100_results", "all"),
        ("fakekeypoints100_detimgs", "fakekeypoints100_gt", "fakekeypoints100_results", "detected"),
        ("fastercoco_kp", "fastercoco_kp_gt_dataset", "fastercoco_kp_dt_dataset", "all"),
    ],
)
def test_published_results_reproduce_published_metrics(real_data, name, gt, results, images, backend):
    pytest.importorskip(backend)
    folder = real_data / "results"
    expected = json.loads((folder / "expected.json").read_text())[name]
    metrics = evaluate_keypoints(
        folder / f"{gt}.json", read_results(folder / f"{results}.json"), images, backend=backend
    )
    assert list(metrics.values()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.realdata
def test_ground_truth_of_the_real_validation_set_has_ap_one(real_data):
    annotations = real_data / "coco" / "annotations" / "person_keypoints_val2017.json"
    metrics = evaluate_keypoints(annotations, ground_truth_results(annotations))
    assert min(metrics.values()) >= 0.999
