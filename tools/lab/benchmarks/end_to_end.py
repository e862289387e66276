"""Benchmark of `posedy predict VIDEO` from file to file, compared with the poses alone and with another checkout.

Videos show people of data/coco_mini under a moving camera, so that the detector of the package finds them.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.geometry import box_iou, xywh_to_xyxy
from posedy.images import read_image
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.inference.video_writer import VideoWriter
from tools.lab.benchmarks.ratios import format_ratio, ratio
from tools.lab.benchmarks.subprocesses import REPOSITORY, run_in_checkout

_MINI = REPOSITORY / "data" / "coco_mini"
_RATE = 30.0
_SIZE = (960, 720)
_SWAY = 0.03  # of the image's sides, to each side
_FRAMES_PER_SECOND = re.compile(r"([\d.]+) frames/s \((.*)\)")


def benchmark_end_to_end(
    checkpoint: str,
    people: Sequence[int],
    frames: int,
    rounds: int,
    before: Path | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times `posedy predict VIDEO` with the default detector.

    A round is one run of each: the command of this checkout, the command with the flip test, the command of the other
    checkout, and the poses alone, which is a `PoseTracker` without the flip test on the same frames in memory. The
    first round is not counted.

    Args:
        checkpoint: the network, for both checkouts.
        people: numbers of people, of one video each.
        frames: length of the videos.
        rounds: number of rounds.
        before: the root of another checkout, such as a `git worktree` of an earlier commit.
        log: receives progress messages.

    Returns:
        The result in plain types.

    Raises:
        ValueError: if no image has that number of people.
        RuntimeError: if a command fails.
    """
    commands: dict[str, tuple[Path, list[str]]] = {"now": (REPOSITORY, []), "flip test": (REPOSITORY, ["--flip"])}
    if before is not None:
        commands["before"] = before.resolve(), []
    videos = []
    for count in people:
        with TemporaryDirectory() as name:
            folder = Path(name)
            video = folder / "people.mp4"
            writer = VideoWriter(video, _RATE)
            for number, frame in enumerate(moving_camera(_read_people(count), frames)):
                writer.write(frame, number / _RATE)
            writer.close()
            seconds: dict[str, list[float]] = {key: [] for key in (*commands, "poses alone")}
            for index in range(rounds + 1):
                log(f"{count} people, round {index} of {rounds}")
                measured = {
                    key: _run_command(tree, video, folder / key, ["--checkpoint", checkpoint, *options])
                    for key, (tree, options) in commands.items()
                }
                found, alone = _track(video, checkpoint)
                if index > 0:
                    for key, (rate, _) in measured.items():
                        seconds[key].append(frames / rate)
                    seconds["poses alone"].append(alone)
        relative = {key: ratio(seconds["before"], seconds[key]) for key in ("now", "flip test") if before is not None}
        videos.append(
            {
                "people": count,
                "found": found,
                "frames_per_second": {key: frames / float(np.median(times)) for key, times in seconds.items()},
                "relative_to_before": relative,
                "stages": measured["now"][1],
            }
        )
    return {"checkpoint": checkpoint, "frames": frames, "rounds": rounds, "videos": videos}


def moving_camera(image: NDArray[np.uint8], frames: int) -> Iterator[NDArray[np.uint8]]:
    """Yields the frames (720, 960, 3) of a camera that sways before an image (H, W, 3)."""
    height, width = image.shape[:2]
    scale = min(_SIZE[0] / width, _SIZE[1] / height)
    for number in range(frames):
        phase = 2 * np.pi * number / (4 * _RATE)
        shift = _SWAY * np.array([np.sin(phase), np.cos(1.3 * phase)]) * _SIZE
        border = (np.array(_SIZE) - scale * np.array([width, height])) / 2
        to_frame = np.array([[scale, 0, border[0] + shift[0]], [0, scale, border[1] + shift[1]]])
        yield cv2.warpAffine(image, to_frame, _SIZE, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def _read_people(count: int) -> NDArray[np.uint8]:
    """Reads an image (H, W, 3) BGR of data/coco_mini with this number of people whose boxes do not overlap.

    Of several images it is the one whose smallest person is largest.
    """
    smallest: dict[Path, float] = {}
    for split in ("train2017", "val2017"):
        gt = GroundTruth.from_coco(_MINI / "annotations" / f"person_keypoints_{split}.json")
        boxes: dict[int, list[list[float]]] = {}
        crowds = {person["image_id"] for person in gt.annotations if person["iscrowd"]}
        for person in gt.annotations:
            boxes.setdefault(person["image_id"], []).append(person["bbox"])
        for image, xywh in boxes.items():
            corners = xywh_to_xyxy(np.array(xywh))
            overlap = np.triu(box_iou(corners, corners), k=1).max()
            if len(xywh) == count and image not in crowds and overlap == 0:
                smallest[_MINI / split / gt.file_names[image]] = min(height for *_, height in xywh)
    if not smallest:
        raise ValueError(f"no image of {_MINI} has {count} people whose boxes do not overlap")
    return read_image(max(smallest, key=lambda path: smallest[path]))[..., ::-1]


def _run_command(tree: Path, video: Path, out: Path, options: Sequence[str]) -> tuple[float, str]:
    """Runs `posedy predict` of a checkout; returns the frames/s that it prints, and its stages."""
    arguments = ["-m", "posedy", "predict", str(video), "--out", str(out), *options]
    output = run_in_checkout(tree, arguments)
    printed = _FRAMES_PER_SECOND.search(output)
    if printed is None:
        raise RuntimeError(f"{' '.join(arguments)} in {tree} printed no frames/s: {output[-500:]}")
    return float(printed[1]), printed[2]


def _track(video: Path, checkpoint: str) -> tuple[float, float]:
    """Returns the mean number of persons per frame, and the seconds of the poses of all frames in memory."""
    tracker = PoseTracker(PoseEstimator(checkpoint, flip=False))
    source = FrameSource(video)
    images = [(frame.image, frame.time) for frame in source]
    source.close()
    tracker(*images[0])  # loads the detector
    tracker.reset()
    start = time.perf_counter()
    found = sum(len(tracker(image, moment)) for image, moment in images)
    return found / len(images), time.perf_counter() - start


def format_end_to_end(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table of frames/s."""
    lines = [
        "| people | persons per frame | frames/s | `--flip` | before | relative to it | `--flip` | poses alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for video in report["videos"]:
        rates = {key: f"{value:.1f}" for key, value in video["frames_per_second"].items()}
        relative = {key: format_ratio(video["relative_to_before"].get(key)) for key in ("now", "flip test")}
        lines.append(
            f"| {video['people']} | {video['found']:.1f} | {rates['now']} | {rates['flip test']} | "
            f"{rates.get('before', '-')} | {relative['now']} | {relative['flip test']} | {rates['poses alone']} |"
        )
    return "\n".join(lines)
