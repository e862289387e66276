import json
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker, TrackedPoses
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_pipeline import run_video


@pytest.fixture
def tracker(dot_net, detector) -> PoseTracker:
    return PoseTracker(PoseEstimator(dot_net, device="cpu", flip=False), detector, smooth=False)


@pytest.fixture
def video(make_video) -> Path:
    return make_video([[(20 + 3.0 * step, 30.0), (200.0, 100.0)] for step in range(25)])


def frames_of(path: Path) -> list[np.ndarray]:
    source = FrameSource(path)
    frames = [frame.image for frame in source]
    source.close()
    return frames


def test_a_video_becomes_a_drawn_video_and_lines(tracker, video, tmp_path, dots_at) -> None:
    outcome = run_video(FrameSource(video), tracker, tmp_path / "o/drawn.mp4", tmp_path / "o/lines.jsonl")
    assert (outcome.frames, outcome.damaged, outcome.interrupted) == (25, 0, False)
    assert all(seconds > 0 for seconds in outcome.stages.values())
    lines = [json.loads(line) for line in (tmp_path / "o/lines.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(25))
    assert lines[10]["time"] == pytest.approx(10 / 30, abs=1e-4)
    found = sorted(person["keypoints"]["red"]["x"] for person in lines[10]["persons"])
    assert found == pytest.approx([dots_at(50, 30)[0, 0], dots_at(200, 100)[0, 0]], abs=3)
    assert [{person["id"] for person in line["persons"]} for line in lines] == [{1, 2}] * 25
    drawn = frames_of(tmp_path / "o/drawn.mp4")
    assert len(drawn) == 25
    assert drawn[0].shape == (200, 320, 3)
    before = frames_of(video)[10]
    assert np.abs(drawn[10].astype(int) - before).mean() > 1  # limbs, ids and the rate
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["drawn.mp4", "lines.jsonl"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError])
def test_whatever_ends_it_leaves_files_that_can_be_read(tracker, video, tmp_path, end) -> None:
    def stop(frame, poses):
        if frame.number == 8:
            raise end("enough")

    files = tmp_path / "drawn.mp4", tmp_path / "lines.jsonl"
    if end is KeyboardInterrupt:
        assert run_video(FrameSource(video), tracker, *files, found=stop).interrupted
    else:
        with pytest.raises(OSError, match="enough"):
            run_video(FrameSource(video), tracker, *files, found=stop)
    assert len(frames_of(files[0])) == len(files[1].read_text().splitlines()) == 8


def test_a_window_can_end_it(tracker, video) -> None:
    shown: list[np.ndarray] = []

    def show(picture: np.ndarray) -> bool:
        assert threading.current_thread() is threading.main_thread()
        shown.append(picture)
        return len(shown) < 5

    outcome = run_video(FrameSource(video), tracker, show=show)
    assert outcome.interrupted
    assert len(shown) == 5
    assert shown[0].shape == (200, 320, 3)


def test_a_file_without_frames_is_named(tracker, video, tmp_path) -> None:
    source = FrameSource(video)
    source._capture.release()
    with pytest.raises(ValueError, match=r"made\.avi has no frame that can be read"):
        run_video(source, tracker, tmp_path / "drawn.mp4", tmp_path / "lines.jsonl")
    assert not (tmp_path / "drawn.mp4").exists()


def test_an_error_of_writing_ends_it(tracker, video, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("posedy.inference.video_io.cv2.VideoWriter", Unwritable)
    with pytest.raises(OSError, match="OpenCV cannot write"):
        run_video(FrameSource(video), tracker, tmp_path / "drawn.mp4")
    with pytest.raises(ValueError, match=r"written as NAME\.mp4"):
        run_video(FrameSource(video), tracker, tmp_path / "drawn.avi")


class Unwritable:
    """A writer of OpenCV's that did not get its file."""

    fourcc = staticmethod(cv2.VideoWriter.fourcc)

    def __init__(self, *given: object) -> None:
        pass

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_memory_stays_flat_over_5000_frames(tracker, make_video, tmp_path) -> None:
    places = [[(20 + step % 90, 30.0), (230 - step % 70, 110.0)] for step in range(5000)]
    in_use: list[int] = []

    def measure(frame: Frame, poses: TrackedPoses) -> None:
        if frame.number % 1000 == 999:
            in_use.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    run_video(FrameSource(make_video(places)), tracker, tmp_path / "drawn.mp4", tmp_path / "lines.jsonl", found=measure)
    assert len(in_use) == 5
    assert max(in_use[1:]) - in_use[0] < 20 * 2**20
