"""The geometry and the tracker of the page, in Node.js, give the results of posedy."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.geometry import image_to_crop_matrix, padded_region, warp_crop
from posedy.inference.detectors import BoxThresholds, nanodet
from posedy.inference.tracking import PoseTracker
from posedy.models.nanodet import INPUT_MULTIPLE, MAX_SIDE
from posedy.poses import Poses
from posedy.skeleton import COCO17
from tools.live.build import PAGE_FILES, describe_detector, describe_tracking

PAGE = Path(__file__).parents[2] / "tools/live"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
RUN = """
import { readFileSync } from "node:fs";
const input = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(await (BODY)(input)));
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's modules, which Node.js takes for modules."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in PAGE_FILES:
        shutil.copy(PAGE / name, folder)
    return folder


def run(folder: Path, imports: str, body: str, value: Any) -> Any:
    """Calls a JavaScript function with a value that is passed as JSON, and returns its result."""
    (folder / "run.js").write_text(imports + RUN.replace("BODY", body))
    assert NODE is not None
    command = [NODE, str(folder / "run.js")]
    done = subprocess.run(command, input=json.dumps(value), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rgba(image: NDArray[np.uint8]) -> dict[str, Any]:
    """An image (H, W, 3) as the page has it."""
    height, width = image.shape[:2]
    data = np.dstack([image, np.full((height, width, 1), 255, np.uint8)])
    return {"data": data.ravel().tolist(), "width": width, "height": height}


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """An image of random colors."""
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_crops_equal_posedys(modules: Path) -> None:
    image = noise(60, 80)
    boxes = [[10, 5, 40, 50], [-30, -10, 20, 90], [70, 40, 79.5, 59], [3.25, 2.5, 4, 7.75], [-50, 20, 200, 40]]
    size = (32, 64)
    body = (
        "({image, boxes, size}) => boxes.map((box) => Array.from(warpCrop(image, imageToCrop(box, size, 1.25), size)))"
    )
    crops = run(
        modules,
        'import { imageToCrop, warpCrop } from "./geometry.js";',
        body,
        {"image": rgba(image), "boxes": boxes, "size": size},
    )
    for box, crop in zip(boxes, crops, strict=True):
        matrix = image_to_crop_matrix(*padded_region(box, size[0] / size[1]), size)
        difference = np.abs(np.array(crop).reshape(64, 32, 3) - warp_crop(image, matrix, size).astype(int))
        # OpenCV rounds positions to 1/32 of a pixel, of at most 255 levels between neighbors along two axes
        assert difference.max() <= 2 * 255 / 64 + 2
        assert difference.mean() < 2


@pytest.mark.parametrize(
    "size",
    [(160, 128), (64, 32), *(pytest.param(size, marks=pytest.mark.slow) for size in ((96, 64), (32, 32), (224, 32)))],
)
def test_resized_images_equal_those_of_the_detector(modules: Path, size: tuple[int, int]) -> None:
    image = noise(131, 147)
    body = "({image, size, factor}) => Array.from(resizeImage(image, size, factor))"
    value = {"image": rgba(image), "size": size, "factor": nanodet.LARGEST_BILINEAR_FACTOR}
    resized = run(modules, 'import { resizeImage } from "./geometry.js";', body, value)
    expected = nanodet.resize(image, size)
    assert np.abs(np.array(resized).reshape(expected.shape) - expected.astype(int)).max() <= 1


def test_sizes_equal_those_of_the_detector(modules: Path) -> None:
    sides = [1, 2, 7, 100, 104, 320, 333, 416, 480, 640, 720, 1080, 1664, 1920, 4032, 30000]
    sizes = [(width, height) for width in sides for height in sides]
    body = "({sizes, detector}) => sizes.map((size) => networkSize(...size, detector))"
    value = {"sizes": sizes, "detector": describe_detector()}
    found = run(modules, 'import { networkSize } from "./geometry.js";', body, value)
    assert [tuple(size) for size in found] == [nanodet.network_size(*size, 416) for size in sizes]
    assert max(max(size) for size in found) == MAX_SIDE
    assert all(side % INPUT_MULTIPLE == 0 for size in found for side in size)


def test_boxes_equal_those_of_the_detector(modules: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (400, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 150, (400, 2))], axis=1).clip(0, 320).astype(np.float32)
    scores = rng.uniform(0, 1, 400).astype(np.float32)
    body = """({boxes, scores, image, size, threshold, detector}) => selectBoxes(
        new Float32Array(boxes), new Float32Array(scores), size, image, threshold, detector)"""
    image, size, threshold = (480, 640), (320, 416), 0.25
    value = {
        "boxes": boxes.ravel().tolist(),
        "scores": scores.tolist(),
        "image": {"width": image[0], "height": image[1]},
        "size": size,
        "threshold": threshold,
        "detector": describe_detector(),
    }
    found = run(modules, 'import { selectBoxes } from "./geometry.js";', body, value)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    kept = order[nanodet.suppress_duplicates(boxes[order], scores[order], nanodet.NMS_IOU)[: nanodet.MAX_BOXES]]
    expected = nanodet.scale_boxes(boxes[kept], size, image[::-1])
    assert 20 < len(kept) < len(order)
    np.testing.assert_allclose([entry["box"] for entry in found], expected, rtol=1e-5)
    np.testing.assert_allclose([entry["score"] for entry in found], scores[kept], rtol=1e-6)


class Scene:
    """A detector and an estimator of persons that move at random, with missing boxes and hidden keypoints.

    It records what a tracker asks for and gets in each frame.
    """

    skeleton = COCO17
    thresholds: BoxThresholds = nanodet.THRESHOLDS

    def __init__(self, seed: int, persons: int = 3) -> None:
        self.rng = np.random.default_rng(seed)
        self.positions = self.rng.uniform(60, 260, (persons, 2))
        self.shapes = self.rng.uniform(-1, 1, (persons, 17, 2)) * [25, 55]
        self.frames: list[dict[str, Any]] = []

    def step(self) -> None:
        """Moves the persons and begins a frame; now and then only few keypoints are visible, or a person jumps."""
        self.positions += self.rng.normal(0, 5, self.positions.shape)
        if self.rng.uniform() < 0.04:
            self.positions[0] = self.rng.uniform(60, 260, 2)
        self.hidden = self.rng.uniform(size=(len(self.positions), 17)) < self.rng.choice([0.1, 0.6, 0.9])
        self.frames.append({"detections": None})

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns some of the persons' boxes, with random scores."""
        kept = self.rng.uniform(size=len(self.positions)) < 0.8
        points = (self.positions[:, None] + self.shapes)[kept]
        boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).clip(0, 320).astype(np.float32)
        scores = np.sort(self.rng.uniform(0.1, 1, len(boxes)))[::-1].astype(np.float32)
        kept_scores = scores >= 0.2
        self.frames[-1]["detections"] = [
            {"box": box.tolist(), "score": float(score)}
            for box, score in zip(boxes[kept_scores], scores[kept_scores], strict=True)
        ]
        return boxes, scores

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32], box_scores: NDArray[np.float32]) -> Poses:
        """Returns for each box the keypoints of the nearest person."""
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        nearest = np.linalg.norm(centers[:, None] - self.positions, axis=-1).argmin(axis=1)
        keypoints = (self.positions[:, None] + self.shapes)[nearest].astype(np.float32)
        keypoints += self.rng.normal(0, 1, keypoints.shape).astype(np.float32)
        scores = np.where(self.hidden[nearest], 0.1, 0.8).astype(np.float32)
        self.frames[-1]["poses"] = [
            {"keypoints": points.tolist(), "scores": values.tolist()}
            for points, values in zip(keypoints, scores, strict=True)
        ]
        self.frames[-1]["boxes"] = boxes.tolist()
        return Poses(keypoints, scores, boxes, box_scores, COCO17)


REPLAY = """async ({frames, config}) => {
    let current = null;
    const asked = [];
    const tracker = new Tracker({
        config,
        detect: async () => { asked.at(-1).detects = true; return current.detections ?? []; },
        estimate: async (image, detections) => {
            asked.at(-1).boxes = detections.map(({ box }) => box);
            return detections.map(({ box, score }, index) => ({ ...current.poses[index], box, boxScore: score }));
        },
    });
    for (current of frames) {
        asked.push({ detects: false });
        const poses = await tracker.next({ width: 320, height: 320 });
        asked.at(-1).kept = poses.length;
        if (asked.at(-1).boxes.length !== current.poses.length) break;
    }
    return asked;
}"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_tracked_boxes_equal_those_of_the_tracker(modules: Path, seed: int) -> None:
    scene = Scene(seed)
    tracker = PoseTracker(scene, scene, smooth=False)  # type: ignore[arg-type]
    kept = []
    for number in range(120):
        scene.step()
        kept.append(len(tracker(np.zeros((320, 320, 3), np.uint8), number / 30)))
    config = {
        "tracking": describe_tracking(),
        "detector": describe_detector(),
        "skeleton": dataclasses.asdict(COCO17),
    }
    asked = run(modules, 'import { Tracker } from "./tracker.js";', REPLAY, {"frames": scene.frames, "config": config})
    assert len(asked) == len(scene.frames)
    detects = [frame["detects"] for frame in asked]
    assert detects == [frame["detections"] is not None for frame in scene.frames]
    assert 12 < sum(detects) < 40  # also extra ones
    for frame, expected in zip(asked, scene.frames, strict=True):
        np.testing.assert_allclose(
            np.reshape(frame["boxes"], (-1, 4)), np.reshape(expected["boxes"], (-1, 4)), atol=1e-3
        )
    assert [frame["kept"] for frame in asked] == kept
    assert max(kept) > 1
