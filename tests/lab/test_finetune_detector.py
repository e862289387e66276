"""Fine-tuning of the person detector: losses and assignment against loops in float64, samples, resuming, comparison."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from posedy.evaluation.bootstrap import WeightedMetrics, paired_difference
from posedy.evaluation.box_eval import evaluate_boxes, match_boxes
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors.nanodet import PersonDetector
from posedy.models.nanodet import PERSON_WEIGHTS, Locations, load_nanodet, make_locations
from tools.lab import detector_samples
from tools.lab.detector_comparison import main as compare
from tools.lab.detector_comparison import read_ground_truths
from tools.lab.detector_losses import BoxTargets, assign_boxes, detection_losses
from tools.lab.detector_samples import (
    TrainingImage,
    augment,
    collect_images,
    epoch_batches,
    ids_of,
    load_batch,
    select_training_images,
    unmatched_boxes,
)
from tools.lab.finetune_detector import main

MINI = Path(__file__).parents[2] / "data/coco_mini"
SPLITS = ("train2017", "val2017")


def iou_of(a: list[float], b: list[float]) -> float:
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    intersection = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return intersection / (sum(areas) - intersection)


def giou_of(a: list[float], b: list[float]) -> float:
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    iou = iou_of(a, b)
    union = sum(areas) / (1 + iou)
    hull = math.prod(max(a[k + 2], b[k + 2]) - min(a[k], b[k]) for k in (0, 1))
    return iou - (hull - union) / hull


def assign_in_loops(locations: Locations, boxes: list[list[float]]) -> list[int]:
    """Assigns by ATSS, box by box and level by level."""
    centers, strides = locations.centers.tolist(), locations.strides.tolist()
    best = [(-1.0, -1)] * len(centers)
    for number, box in enumerate(boxes):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates = []
        for stride in sorted(set(strides)):
            level = [index for index, each in enumerate(strides) if each == stride]
            level.sort(key=lambda index: math.dist(centers[index], middle))
            candidates += level[:9]
        ious = {}
        for index in candidates:
            (x, y), half = centers[index], 4 * strides[index]
            ious[index] = iou_of([x - half, y - half, x + half, y + half], box)
        threshold = np.mean(list(ious.values())) + np.std(list(ious.values()), ddof=1)
        for index, iou in ious.items():
            x, y = centers[index]
            is_inside = box[0] + 0.01 < x < box[2] - 0.01 and box[1] + 0.01 < y < box[3] - 0.01
            if iou >= threshold and is_inside and iou > best[index][0]:
                best[index] = (iou, number)
    return [number for _, number in best]


def losses_in_loops(
    logits: Tensor, bins: Tensor, locations: Locations, targets: list[BoxTargets]
) -> tuple[float, float, float]:
    """Computes the three terms of the loss, location by location."""
    quality_sum = giou_sum = distribution_sum = weight_sum = 0.0
    positives = 0
    for image, target in enumerate(targets):
        labeled = target.labeled.tolist()
        for index, number in enumerate(assign_in_loops(locations, labeled)):
            (x, y), stride = locations.centers[index].tolist(), float(locations.strides[index])
            score = 1 / (1 + math.exp(-float(logits[image, index, 0])))
            quality = 0.0
            if number >= 0:
                exponentials = bins[image, index].exp().tolist()
                probabilities = [[value / sum(side) for value in side] for side in exponentials]
                distances = [stride * sum(k * p for k, p in enumerate(side)) for side in probabilities]
                box = [x - distances[0], y - distances[1], x + distances[2], y + distances[3]]
                left, top, right, bottom = labeled[number]
                quality = iou_of(box, labeled[number])
                positives += 1
                weight_sum += score
                giou_sum += score * (1 - giou_of(box, labeled[number]))
                terms = []
                for side, distance in zip(probabilities, (x - left, y - top, right - x, bottom - y), strict=True):
                    d = min(max(distance / stride, 0), 9.9)
                    low = math.floor(d)
                    terms.append(-((low + 1 - d) * math.log(side[low]) + (d - low) * math.log(side[low + 1])))
                distribution_sum += score * float(np.mean(terms))
            elif any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for box in target.ignored.tolist()):
                continue
            cross_entropy = -quality * math.log(score) - (1 - quality) * math.log(1 - score)
            quality_sum += (score - quality) ** 2 * cross_entropy
    return quality_sum / positives, giou_sum / weight_sum, distribution_sum / weight_sum


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Boxes of 8 to 120 pixels in a 128x96 input."""
    sizes = 8 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([112, 80])
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * (torch.tensor([128, 96]) - sizes)
    return torch.cat([corners, corners + sizes], dim=1)


@pytest.mark.parametrize("seed", range(4))
def test_losses_equal_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    locations = Locations(*(each.double() for each in make_locations(128, 96)))
    count = len(locations.strides)
    logits = torch.randn(3, count, 1, generator=generator, dtype=torch.float64)
    bins = 2 * torch.randn(3, count, 4, 11, generator=generator, dtype=torch.float64)
    targets = [
        BoxTargets(random_boxes(labeled, generator), random_boxes(ignored, generator))
        for labeled, ignored in ((6, 2), (0, 1), (1, 0))
    ]
    for target in targets:
        assert assign_boxes(locations, target.labeled).tolist() == assign_in_loops(locations, target.labeled.tolist())
    losses = detection_losses(logits, bins, locations, targets)
    assert [float(loss) for loss in losses] == pytest.approx(
        losses_in_loops(logits, bins, locations, targets), rel=1e-6
    )
    assert float(losses.total) == pytest.approx(float(losses.quality + 2 * losses.giou + losses.distribution / 4))


def test_ignored_locations_have_no_gradient_and_images_without_persons_are_finite() -> None:
    locations = make_locations(64, 64)
    logits = torch.zeros(1, len(locations.strides), 1, requires_grad=True)
    bins = torch.zeros(1, len(locations.strides), 4, 11, requires_grad=True)
    target = BoxTargets(torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 32.0, 64.0]]))
    losses = detection_losses(logits, bins, locations, [target])
    losses.total.backward()
    assert logits.grad is not None
    is_counted = logits.grad[0, :, 0] != 0
    assert is_counted.tolist() == (locations.centers[:, 0] > 32).tolist()
    assert losses.giou.item() == losses.distribution.item() == 0


def test_no_image_of_tests_or_evaluations_is_trained_on() -> None:
    listed = json.loads((MINI / "images.json").read_bytes())
    contents = [json.loads((MINI / f"annotations/person_keypoints_{split}.json").read_bytes()) for split in SPLITS]
    images = [image for content in contents for image in content["images"]]
    reserved = {image["id"] for image in images}
    assert reserved == {image_id for split in SPLITS for image_id in listed[split]}
    assert len(reserved) == 48
    further = [{"id": 5, "from": "val2017"}, {"id": 5000001}, {"id": 6, "from": "val2017"}, {"id": 7}]
    annotations = [{"id": number, "image_id": image["id"]} for number, image in enumerate([*images, *further])]
    content = {"images": [*images, *further], "annotations": annotations}
    selected = select_training_images(content, excluded={7})
    assert {image["id"] for image in selected["images"]} == {5000001, 6}
    assert {annotation["image_id"] for annotation in selected["annotations"]} == {5000001, 6}


@pytest.mark.realdata
def test_real_training_images_are_neither_dev_nor_validation_images(real_data: Path) -> None:
    folder = real_data / "coco/annotations"
    content = json.loads((folder / "person_keypoints_train2017.json").read_bytes())
    validation = ids_of(folder / "person_keypoints_val2017.json")
    selected = {image["id"] for image in select_training_images(content, validation)["images"]}
    dev = {image["id"] for image in content["images"] if image["from"] == "val2017" and image["id"] % 5 == 0}
    mini = {image_id for split in SPLITS for image_id in ids_of(MINI / f"annotations/person_keypoints_{split}.json")}
    assert len(dev) >= 204
    assert len(selected) > 2000
    assert not selected & (dev | validation | mini)


def test_confident_boxes_that_match_no_label_and_crowds_are_ignored(tmp_path: Path) -> None:
    labeled = np.array([[0, 0, 10, 10]], dtype=np.float32)
    detected = [[0, 0, 10, 9, 0.9], [20, 0, 30, 10, 0.5], [20, 20, 30, 30, 0.1]]
    assert unmatched_boxes(detected, labeled).tolist() == [[20, 0, 30, 10]]
    assert unmatched_boxes([], labeled).shape == (0, 4)
    assert unmatched_boxes(detected, labeled[:0]).shape == (2, 4)
    annotations = [{"image_id": 3, "bbox": [0, 0, 10, 10]}, {"image_id": 3, "bbox": [5, 5, 2, 3], "iscrowd": 1}]
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 40, "height": 30}],
        "annotations": annotations,
    }
    (image,) = collect_images(content, tmp_path, {"3": detected})
    assert (image.path, image.size) == (tmp_path / "a.jpg", (40, 30))
    assert image.labeled.tolist() == [[0, 0, 10, 10]]
    assert image.ignored.tolist() == [[5, 5, 7, 8], [20, 0, 30, 10]]


@pytest.mark.parametrize("seed", range(6))
def test_augmented_boxes_remain_on_their_pixels(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_samples, "_jitter_colors", lambda image, _: image)
    image = np.zeros((120, 200, 3), dtype=np.uint8)
    image[30:90, 80:120] = 255
    boxes = np.array([[80, 30, 120, 90]], dtype=np.float32)
    record = TrainingImage(Path("a.jpg"), (200, 120), boxes, boxes)
    crop, targets = augment(image, record, (416, 256), np.random.default_rng(seed))
    assert crop.shape == (256, 416, 3)
    y, x = np.nonzero((crop > 200).all(axis=2))
    expected = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert targets.labeled.tolist() == [pytest.approx(expected, abs=1.5)]
    assert targets.ignored.tolist() == targets.labeled.tolist()


def test_persons_outside_the_crop_are_ignored() -> None:
    boxes = np.array([[0, 0, 200, 120], [-500, 0, 20, 120]], dtype=np.float32)
    record = TrainingImage(Path("a.jpg"), (200, 120), boxes, boxes[:0])
    image = np.full((120, 200, 3), 90, dtype=np.uint8)
    _, targets = augment(image, record, (416, 256), np.random.default_rng(0))
    assert len(targets.labeled) == len(targets.ignored) == 1


def make_records() -> list[TrainingImage]:
    """The training images of coco_mini."""
    content = json.loads((MINI / "annotations/person_keypoints_train2017.json").read_bytes())
    detected: dict[str, list[list[float]]] = {str(image["id"]): [] for image in content["images"]}
    return collect_images(content, MINI / "train2017", detected)


def test_batches_have_similar_aspect_ratios_and_all_images() -> None:
    images = make_records()
    rng = np.random.default_rng(0)
    batches = epoch_batches(images, 5, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(images)))
    assert max(map(len, batches)) <= 5
    pixels, targets = load_batch([images[index] for index in batches[0]], rng)
    assert pixels.dtype == torch.uint8
    assert len(pixels) == len(targets) == len(batches[0])
    assert all(side % 32 == 0 for side in pixels.shape[1:3])


def make_gt(tmp_path: Path, images: int = 12) -> tuple[Path, dict[str, Any]]:
    content = json.loads((MINI / "annotations/person_keypoints_val2017.json").read_bytes())
    content["images"] = content["images"][:images]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(content))
    return path, content


def test_comparison_equals_the_evaluation_and_pairs_images(tmp_path: Path) -> None:
    path, content = make_gt(tmp_path)
    rng = np.random.default_rng(0)
    persons = [person for person in content["annotations"] if not person["iscrowd"]]
    first, second = (
        [
            {"image_id": person["image_id"], "category_id": 1, "score": float(rng.random())}
            | {"bbox": (np.array(person["bbox"]) * (1 + noise * rng.random(4))).tolist()}
            for person in persons
        ]
        for noise in (0.4, 0.1)
    )
    gt = read_ground_truths(path)["labels"]
    matched = [WeightedMetrics(match_boxes(gt, each)) for each in (first, second)]
    differences = paired_difference(*matched, resamples=50)
    evaluations = [evaluate_boxes(gt, each).metrics for each in (first, second)]
    for metric in ("AP", "AP50", "AP75"):
        difference, interval = differences[metric]
        assert difference == pytest.approx(evaluations[1][metric] - evaluations[0][metric])
        assert interval.low < difference < interval.high
    assert differences["AP"][1].low > 0
    same = paired_difference(matched[0], matched[0], resamples=5)["AP"]
    assert (same[0], same[1].low, same[1].high) == (0, 0, 0)


def test_comparison_of_equal_weights_has_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = make_gt(tmp_path, images=2)
    data = ["--annotations", str(path), "--images", str(MINI / "val2017")]
    out = tmp_path / "comparison.json"
    compare([str(PERSON_WEIGHTS), *data, "--sizes", "96", "--resamples", "3", "--json", str(out)])
    rows, printed = json.loads(out.read_bytes()), capsys.readouterr().out
    assert [(row["size"], row["ground_truth"]) for row in rows] == [(96, "unlabeled ignored"), (96, "labels")]
    for row in rows:
        assert row["baseline"] == row["weights"]
        assert row["differences"]["AP"] == [0, 0, 0]
        assert f"AP {row['baseline']['AP']:.3f}" in printed


@pytest.mark.slow
def test_run_is_resumed_exactly_and_its_weights_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_samples, "MINI_ANNOTATIONS", tmp_path / "none")
    monkeypatch.setattr(detector_samples, "_SIZES", (96,))
    gt, _ = make_gt(tmp_path, images=1)
    labels = MINI / "annotations/person_keypoints_train2017.json"
    data = ["--annotations", str(labels), "--images", str(MINI / "train2017"), "--dev-annotations", str(gt)]
    data += ["--dev-images", str(MINI / "val2017"), "--batch-size", "2", "--minutes", "1000", "--evaluations", "2"]
    detected = {str(image_id): [] for image_id in ids_of(labels)}

    def run(name: str, *options: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "detected.json").write_text(json.dumps(detected))
        main([*data, "--out", str(tmp_path / name), *options])
        return tmp_path / name

    complete = run("complete", "--steps", "2")
    curve = json.loads((complete / "curve.json").read_bytes())
    assert [row["step"] for row in curve] == [1, 2]
    with monkeypatch.context() as context:
        context.setattr("tools.lab.finetune_detector.FineTuning.evaluate", stop_after_saving)
        with pytest.raises(InterruptedError):
            run("resumed", "--steps", "2")
    resumed = run("resumed", "--steps", "2")
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (complete, resumed)]
    for name, tensor in load_nanodet().state_dict().items():
        assert torch.equal(states[0]["average"][name], states[1]["average"][name])
        is_frozen = name.startswith(("stem", "stages.0"))
        assert torch.equal(states[0]["average"][name], tensor) == is_frozen, name
    with pytest.raises(ValueError, match="resumed"):
        run("resumed", "--steps", "3")
    image = rgb_to_bgr(read_image(MINI / "val2017/000000085772.jpg"))
    boxes, _ = PersonDetector(device="cpu", runtime="torch", weights=resumed / "tuned.safetensors").detect(image)
    assert len(boxes) > 0


def stop_after_saving(run: Any, *_: Path) -> None:
    """Ends a run after its first evaluation, as if it were killed."""
    run.curve.append({"step": run.step})
    run.save()
    raise InterruptedError
