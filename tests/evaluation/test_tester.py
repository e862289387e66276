"""Evaluation from boxes to COCO metrics, with ground truth in place of a network and with a network."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from posedy.codecs import MSRACodec, SimCCCodec, create_codec
from posedy.config import EvalConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.datasets import TopDownEvalDataset
from posedy.data.detections import read_detections
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.evaluator import BoxPoses, EvalProtocol, evaluate_model, poses_to_results, predict_crops
from posedy.geometry import apply_affine, image_to_crop_matrix, invert_affine, padded_region
from posedy.models.factory import create_model
from posedy.oks import rescore
from posedy.prediction import Model, TorchModel

SIZE = (192, 256)
CODEC = MSRACodec(SIZE)


def ground_truth_poses(persons: CocoPersons) -> BoxPoses:
    ones = np.ones(len(persons), dtype=np.float32)
    scores = np.ones(persons.keypoints.shape[:2], dtype=np.float32)
    return BoxPoses(persons.image_index, persons.boxes, ones, persons.keypoints.astype(np.float64), scores)


def crop_areas(persons: CocoPersons) -> np.ndarray:
    return TopDownEvalDataset(persons, persons.image_index, persons.boxes, SIZE, 1.25).sizes.prod(axis=-1)


class Oracle(Model):
    """A model that returns the ground-truth heatmaps of the crops, in their order.

    For flipped crops it encodes flipped keypoints, to detect errors of the inverse transform and of the flip pairs.
    """

    def __init__(self, persons: CocoPersons, crops: TopDownEvalDataset) -> None:
        super().__init__(
            name="oracle",
            options={},
            skeleton=None,
            num_keypoints=persons.skeleton.num_keypoints,
            codec=CODEC,
            device=torch.device("cpu"),
        )
        self.keypoints = np.stack(
            [apply_affine(crops.image_to_crop(i), persons.keypoints[i]) for i in range(len(persons))]
        )
        self.labeled = torch.tensor(persons.visibility > 0)
        self.num_predicted = 0

    def __call__(self, crops: np.ndarray, flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        batch = slice(self.num_predicted, self.num_predicted + len(crops))
        self.num_predicted = batch.stop
        keypoints, labeled = self.keypoints[batch], self.labeled[batch]
        outputs = {"heatmaps": CODEC.encode(torch.tensor(keypoints), labeled)[0]}
        if flip_permutation is not None:
            order = list(flip_permutation)
            flipped = torch.tensor((keypoints * [-1, 1] + [SIZE[0] - 1, 0])[:, order])
            flipped_outputs = {"heatmaps": CODEC.encode(flipped, labeled[:, order])[0]}
            outputs = CODEC.merge_flipped(outputs, flipped_outputs, order)
        return outputs


class Noise(Model):
    """A model that returns random heatmaps, and records the flip permutations that it gets."""

    def __init__(self, num_keypoints: int) -> None:
        codec = MSRACodec((32, 64))
        super().__init__(
            **{"name": "noise", "options": {}, "skeleton": None, "num_keypoints": num_keypoints},
            **{"codec": codec, "device": torch.device("cpu")},
        )
        self.flip_permutations: list[Sequence[int] | None] = []

    def __call__(self, crops: np.ndarray, flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        self.flip_permutations.append(flip_permutation)
        seed = torch.Generator().manual_seed(int(crops.sum()))
        return {"heatmaps": torch.rand(len(crops), self.num_keypoints, 16, 8, generator=seed)}


@pytest.mark.parametrize("flip", [False, True])
def test_ground_truth_heatmaps_reach_the_accuracy_of_the_codec(persons: CocoPersons, flip: bool) -> None:
    config = EvalConfig(flip=flip, batch_size=7)
    crops = TopDownEvalDataset(persons, persons.image_index, persons.boxes, SIZE, 1.25)
    oracle = Oracle(persons, crops)
    result = evaluate_model(oracle, persons, None, config)
    assert oracle.num_predicted == len(persons)
    assert result.metrics["AP"] > 0.93
    assert result.metrics["AP50"] > 0.99
    labeled = persons.visibility > 0
    distance = np.abs(result.poses.keypoints - persons.keypoints)[labeled] / (crops.sizes[:, 0] / SIZE[0]).max()
    # half a heatmap pixel from rounding, and a quarter from averaging with the shifted flipped heatmap
    assert distance.max() <= 4 * (0.5 + 0.25) + 1e-6


def test_ground_truth_poses_have_ap_one_without_nms(persons: CocoPersons) -> None:
    results = poses_to_results(persons, ground_truth_poses(persons), crop_areas(persons), EvalConfig(nms=None))
    metrics = evaluate_keypoints(persons.annotations, results)
    assert min(value for value in metrics.values() if not np.isnan(value)) >= 0.999


def test_nms_keeps_the_higher_scored_of_equal_poses(persons: CocoPersons) -> None:
    poses = ground_truth_poses(persons)
    twice = BoxPoses(*(np.concatenate([value, value]) for value in vars(poses).values()))
    twice.box_scores[: len(persons)] = 0.5
    areas = np.concatenate([crop_areas(persons)] * 2)
    results = poses_to_results(persons, twice, areas, EvalConfig())
    assert all(result["score"] == 1 for result in results)
    assert len(poses_to_results(persons, twice, areas, EvalConfig(nms=None))) == 2 * len(persons)


@pytest.mark.parametrize(("nms", "num_kept"), [(0.5, 1), (0.9, 2)])
def test_nms_has_the_threshold_of_the_configuration(persons: CocoPersons, nms: float, num_kept: int) -> None:
    """Each image has a person and a copy that is moved by a tenth of its size, which is an OKS between 0.5 and 0.9."""
    first = np.unique(persons.image_index, return_index=True)[1]
    areas = crop_areas(persons)[first]
    poses = BoxPoses(*(value[first] for value in vars(ground_truth_poses(persons)).values()))
    moved = replace(
        poses,
        keypoints=poses.keypoints + [0.1, 0] * np.sqrt(areas)[:, None, None],
        box_scores=np.full(len(first), 0.5, np.float32),
    )
    assert 0.5 < np.exp(-(0.1**2) / (8 * np.square(persons.skeleton.sigmas))).mean() < 0.9
    both = BoxPoses(
        *(np.concatenate(values) for values in zip(vars(poses).values(), vars(moved).values(), strict=True))
    )
    results = poses_to_results(persons, both, np.concatenate([areas, areas]), EvalConfig(nms=nms))
    assert len(results) == num_kept * len(first)
    assert sum(result["score"] == 1 for result in results) == len(first)


def test_nms_uses_the_area_of_the_padded_crop(persons: CocoPersons, monkeypatch: pytest.MonkeyPatch) -> None:
    model, areas = make_model(), []

    def record_areas(keypoints: np.ndarray, scores: np.ndarray, area: np.ndarray, *others: object) -> np.ndarray:
        areas.extend(area)
        return np.arange(len(area))

    monkeypatch.setattr("posedy.evaluation.evaluator.oks_nms", record_areas)
    evaluate_model(model, persons, None, EvalConfig(flip=False), padding=1.5)
    order = np.argsort(persons.image_index, kind="stable")
    width, height = (persons.boxes[order, 2:] - persons.boxes[order, :2]).T
    width, height = np.maximum(width, height / 2), np.maximum(height, width * 2)  # crops of 64x32
    np.testing.assert_allclose(areas, 1.5**2 * width * height, rtol=1e-5)


def test_results_have_rescored_scores_and_ids_of_the_file(persons: CocoPersons) -> None:
    poses = ground_truth_poses(persons)
    rng = np.random.default_rng(0)
    poses.scores[:] = rng.random(poses.scores.shape)
    poses.box_scores[:] = rng.random(len(persons))
    results = poses_to_results(persons, poses, crop_areas(persons), EvalConfig(nms=None, keypoint_threshold=0.4))
    expected = rescore(poses.box_scores, poses.scores, 0.4)
    ids = persons.image_ids[persons.image_index]
    actual = np.array(sorted((result["image_id"], result["score"]) for result in results))
    assert np.allclose(actual, sorted(zip(ids.tolist(), expected.tolist(), strict=True)))
    assert {result["category_id"] for result in results} == {persons.category_id}


def make_model() -> TorchModel:
    torch.manual_seed(0)
    net = create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter) * parameter.abs().mean()
    torch.nn.init.normal_(net.head.heatmap.weight, std=1.0)
    return TorchModel(net.eval())


def test_predictions_do_not_depend_on_batches_workers_and_shards(persons: CocoPersons) -> None:
    model = make_model()
    crops = TopDownEvalDataset(persons, persons.image_index, persons.boxes, model.input_size, 1.25)
    _, keypoints, scores = predict_crops(model, crops, EvalConfig(batch_size=64))
    _, one_by_one, _ = predict_crops(model, crops, EvalConfig(batch_size=1))
    # near ties of the argmax may be resolved differently
    assert np.isclose(keypoints, one_by_one, atol=1e-2).mean() > 0.99
    _, with_workers, _ = predict_crops(model, crops, EvalConfig(batch_size=8), workers=2)
    _, without, _ = predict_crops(model, crops, EvalConfig(batch_size=8), workers=0)
    assert (with_workers == without).all()
    shards = [predict_crops(model, crops, EvalConfig(), shard=(i, 3)) for i in range(3)]
    indices = np.concatenate([shard[0] for shard in shards])
    assert sorted(indices) == list(range(len(crops)))
    merged = np.concatenate([shard[2] for shard in shards])[np.argsort(indices)]
    assert np.allclose(merged, scores, atol=1e-4)


def test_detections_may_cover_some_images_only(persons: CocoPersons, synthetic: Path) -> None:
    detections = read_detections(synthetic / "annotations/person_detections_val2017.json", persons)
    few = detections.image_index < 3
    some = replace(
        detections,
        image_index=detections.image_index[few],
        boxes=detections.boxes[few],
        scores=detections.scores[few],
    )
    evaluated = evaluate_model(make_model(), persons, some, EvalConfig(flip=False))
    assert {result["image_id"] for result in evaluated.results} <= set(persons.image_ids[:3].tolist())
    assert "person_detections_val2017.json" in str(evaluated.protocol)
    assert 0 <= evaluated.metrics["AP"] < 0.5


def test_results_of_detections_have_the_scores_of_the_file(persons: CocoPersons, synthetic: Path) -> None:
    path = synthetic / "annotations/person_detections_val2017.json"
    scores = np.array([record["score"] for record in json.loads(path.read_text())])
    detections = read_detections(path, persons)
    assert len(detections) == len(scores)
    assert scores.std() > 0.1
    config = EvalConfig(flip=False, nms=None, keypoint_threshold=0.3)
    evaluated = evaluate_model(Noise(persons.skeleton.num_keypoints), persons, detections, config)
    np.testing.assert_allclose(evaluated.poses.box_scores, scores, rtol=1e-6)
    expected = rescore(scores, evaluated.poses.scores, 0.3)
    order = np.argsort(detections.image_index, kind="stable")
    np.testing.assert_allclose([result["score"] for result in evaluated.results], expected[order], rtol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_flipped_only_for_the_flip_test(persons: CocoPersons, flip: bool) -> None:
    model = Noise(persons.skeleton.num_keypoints)
    result = evaluate_model(model, persons, None, EvalConfig(flip=flip, batch_size=10))
    assert model.flip_permutations == [persons.skeleton.flip_permutation if flip else None] * -(-len(persons) // 10)
    assert result.protocol.flip == flip


def test_protocol_contains_all_settings() -> None:
    line = str(EvalProtocol("gt", 10, 4, (96, 128), True, None, 1.25, 0.0, 0.2, "pycocotools", "unbiased", 0))
    for word in ("boxes=gt", "10", "4 images", "flip=on", "NMS=off", "128x96", "codec=unbiased", "pycocotools"):
        assert word in line


@pytest.mark.slow
@pytest.mark.realdata
def test_ground_truth_poses_on_real_images(real_data: Path) -> None:
    """NMS removes five near-duplicate annotations."""
    coco = real_data / "coco"
    persons = read_coco(coco / "annotations/person_keypoints_val2017.json", coco / "val2017")
    poses, areas = ground_truth_poses(persons), crop_areas(persons)
    without = evaluate_keypoints(persons.annotations, poses_to_results(persons, poses, areas, EvalConfig(nms=None)))
    assert min(without.values()) >= 0.999
    results = poses_to_results(persons, poses, areas, EvalConfig())
    assert len(persons) - len(results) == 5
    assert evaluate_keypoints(persons.annotations, results)["AP"] == pytest.approx(0.990, abs=0.0005)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("codec_name", "size", "ceiling"),
    [
        ("msra", (192, 256), 0.979),
        pytest.param("msra", (96, 128), 0.884, marks=pytest.mark.slow),
        # the missing keypoints lie at the crop border
        pytest.param("unbiased", (192, 256), 0.986, marks=pytest.mark.slow),
        pytest.param("unbiased", (96, 128), 0.984, marks=pytest.mark.slow),
        # keypoints more than 3 sigma, 9 pixels at 256x192, outside the crop have no target
        pytest.param("simcc", (192, 256), 0.976, marks=pytest.mark.slow),
        pytest.param("simcc", (96, 128), 0.977, marks=pytest.mark.slow),
    ],
)
def test_codec_accuracy_on_real_persons(
    real_data: Path, codec_name: str, size: tuple[int, int], ceiling: float
) -> None:
    """AP of perfect outputs with ground-truth boxes."""
    persons = read_coco(real_data / "coco/annotations/person_keypoints_val2017.json")
    codec = create_codec(codec_name, size)
    centers, sizes = padded_region(persons.boxes, size[0] / size[1])
    image_to_crop = image_to_crop_matrix(centers, sizes, size)
    in_crop = torch.from_numpy(apply_affine(image_to_crop, persons.keypoints))
    labeled = torch.from_numpy(persons.visibility > 0)
    targets, _ = codec.encode(in_crop, labeled)
    if isinstance(codec, SimCCCodec):
        logits = targets.clamp_min(1e-30).log().split(codec.num_bins, dim=-1)
        decoded, scores = codec.decode(dict(zip(codec.output_names, logits, strict=True)))
    else:
        decoded, scores = codec.decode({"heatmaps": targets})
    in_image = apply_affine(invert_affine(image_to_crop), decoded.numpy())
    poses = BoxPoses(persons.image_index, persons.boxes, np.ones(len(persons), np.float32), in_image, scores.numpy())
    results = poses_to_results(persons, poses, sizes.prod(axis=-1), EvalConfig(nms=None))
    assert evaluate_keypoints(persons.annotations, results)["AP"] == pytest.approx(ceiling, abs=0.001)
