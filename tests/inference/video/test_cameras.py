"""A simulated camera: frames of 0 x 0 pixels at the start, a slow and a fast one, unplugged while it is read."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.cli.main import main
from posedy.inference.tracked_poses import TrackedPoses
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_pipeline import run_video
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet
from posedy.poses import Poses
from posedy.skeleton import COCO17


class Camera:
    """A camera that takes an image at each interval; one that is not read in time is lost."""

    def __init__(self, interval: float, num_frames: int, num_empty: int = 0) -> None:
        self.interval, self.num_frames, self.num_empty = interval, num_frames, num_empty
        self.began = 0.0  # the time of the first image
        self.last = -1

    def isOpened(self) -> bool:  # noqa: N802 the name of OpenCV
        return True

    def get(self, name: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 64, cv2.CAP_PROP_FRAME_HEIGHT: 48, cv2.CAP_PROP_FPS: 30}.get(name, 0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.last < 0:
            self.began = time.perf_counter()
        number = max(int((time.perf_counter() - self.began) / self.interval), self.last + 1)
        time.sleep(max(0, self.began + number * self.interval - time.perf_counter()))
        self.last = number
        if number >= self.num_empty + self.num_frames:  # unplugged
            return False, None
        return True, np.full((48, 64, 3) if number >= self.num_empty else (0, 0, 3), number, np.uint8)

    def release(self) -> None:
        pass


def connect(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posedy.inference.video_opencv.cv2.VideoCapture", lambda source: camera)


def no_poses() -> Poses:
    empty = np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32), np.zeros((0, 4), np.float32)
    return Poses(*empty, np.zeros(0, np.float32), COCO17, track_ids=np.zeros(0, np.int64))


def test_a_slow_camera_keeps_its_times_and_ends_when_unplugged(
    net: PoseNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(net, tmp_path / "net.safetensors")
    connect(Camera(0.15, num_frames=6, num_empty=2), monkeypatch)
    argv = [
        "predict",
        "--webcam",
        "0",
        "--full-image",
        "--checkpoint",
        str(tmp_path / "net.safetensors"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*argv, "--device", "cpu", "--no-flip"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out/camera-0.jsonl").read_text().splitlines()]
    numbers = [line["frame"] for line in lines]
    # an image may be dropped while the network starts
    assert (numbers[0], numbers[-1], len(numbers) > 3) == (2, 7, True)
    times = [line["time"] for line in lines]
    assert np.diff(times) == pytest.approx(0.15 * np.diff(numbers), abs=0.08)
    drawn = FrameSource(tmp_path / "out/camera-0.mp4")
    assert [frame.time for frame in drawn] == pytest.approx(np.array(times) - times[0], abs=0.02)
    drawn.close()


class SlowTracker:
    """Takes 0.15 s for each image of a camera; records how old they are."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.ages: list[float] = []

    def __call__(self, image: np.ndarray, moment: float) -> Poses:
        self.ages.append(time.perf_counter() - self.camera.began - image[0, 0, 0] * self.camera.interval)
        time.sleep(0.15)
        return no_poses()


@pytest.mark.parametrize("from_python", [False, True])
def test_frames_of_a_fast_camera_are_not_late(from_python: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(camera := Camera(0.02, num_frames=60), monkeypatch)
    tracker = SlowTracker(camera)
    numbers: list[int | None] = []
    if from_python:
        tracked = TrackedPoses(tracker, FrameSource(0))
        numbers += [poses.frame for poses in tracked]
        assert len(numbers) + tracked.dropped == 60
    else:
        result = run_video(
            FrameSource(0),
            lambda frame: tracker(frame.image, frame.time),
            on_frame=lambda frame, poses: numbers.append(frame.number),
        )
        assert (result.frames, result.damaged, result.missing) == (len(numbers), 0, 0)
    assert 5 <= len(numbers) <= 14
    assert numbers == sorted(set(numbers))
    # the oldest of four waiting images, where each waited for all those before it without dropping
    assert np.median(tracker.ages) < 0.3


def test_a_camera_without_a_single_image_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(Camera(0.01, num_frames=0, num_empty=3), monkeypatch)
    with pytest.raises(ValueError, match="no readable frame"):
        run_video(FrameSource(0), lambda frame: no_poses())


def test_the_frame_type_is_that_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(Camera(0.01, num_frames=2), monkeypatch)
    source = FrameSource(0)
    assert source.is_live
    assert [type(frame) for frame in source] == [Frame, Frame]
