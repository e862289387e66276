import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.inference.estimator import PoseEstimator
from posedy.inference.threads import Prefetcher
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_pipeline import run_video
from posedy.inference.video_writer import JsonLinesWriter, VideoWriter
from posedy.poses import Poses
from posedy.skeleton import numbered_skeleton


def by_image(track: Callable[[NDArray[np.uint8], float], Poses]) -> Callable[[Frame], Poses]:
    """Returns a function of frames that calls one of images and times."""
    return lambda frame: track(frame.image, frame.time)


@pytest.fixture
def tracker(dot_net, detector) -> PoseTracker:
    return PoseTracker(PoseEstimator(dot_net, device="cpu", flip=False), detector, smooth=False)


@pytest.fixture
def video(make_video) -> Path:
    return make_video([[(20 + 3.0 * step, 30.0), (200.0, 100.0)] for step in range(25)])


def read_frames(path: Path) -> list[np.ndarray]:
    source = FrameSource(path)
    frames = [frame.image for frame in source]
    source.close()
    return frames


def test_run_video_writes_video_and_keypoints(tracker, video, tmp_path, dots_at) -> None:
    result = run_video(FrameSource(video), by_image(tracker), tmp_path / "o/drawn.mp4", tmp_path / "o/lines.jsonl")
    assert (result.frames, result.damaged, result.interrupted) == (25, 0, False)
    assert all(seconds > 0 for seconds in result.stages.values())
    lines = [json.loads(line) for line in (tmp_path / "o/lines.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(25))
    assert lines[10]["time"] == pytest.approx(10 / 30, abs=1e-4)
    predicted = sorted(person["keypoints"]["red"]["x"] for person in lines[10]["persons"])
    assert predicted == pytest.approx([dots_at(50, 30)[0, 0], dots_at(200, 100)[0, 0]], abs=3)
    assert [{person["id"] for person in line["persons"]} for line in lines] == [{1, 2}] * 25
    assert next(iter(lines[0]["persons"][0])) == "id"
    drawn = read_frames(tmp_path / "o/drawn.mp4")
    assert len(drawn) == 25
    assert drawn[0].shape == (200, 320, 3)
    original = read_frames(video)[10]
    assert np.abs(drawn[10].astype(int) - original).mean() > 1  # limbs and ids
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["drawn.mp4", "lines.jsonl"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_files_are_complete_after_ctrl_c_and_unchanged_after_errors(tracker, video, tmp_path, error) -> None:
    def stop(frame, poses):
        if frame.number == 8:
            raise error("stopped")

    files = tmp_path / "drawn.mp4", tmp_path / "lines.jsonl"
    for file in files:
        file.write_text("earlier")
    if error is KeyboardInterrupt:
        assert run_video(FrameSource(video), by_image(tracker), *files, on_frame=stop).interrupted
        assert len(read_frames(files[0])) == len(files[1].read_text().splitlines()) == 8
    else:
        with pytest.raises(OSError, match="stopped"):
            run_video(FrameSource(video), by_image(tracker), *files, on_frame=stop)
        assert [file.read_text() for file in files] == ["earlier"] * 2
    assert sorted(tmp_path.iterdir()) == sorted([video, *files])


def test_ctrl_c_before_the_first_frame_writes_nothing(video, tmp_path) -> None:
    def stop(image, time):
        raise KeyboardInterrupt

    files = tmp_path / "drawn.mp4", tmp_path / "lines.jsonl"
    for file in files:
        file.write_text("earlier")
    result = run_video(FrameSource(video), by_image(stop), *files)
    assert (result.frames, result.interrupted) == (0, True)
    assert [file.read_text() for file in files] == ["earlier"] * 2
    assert sorted(tmp_path.iterdir()) == sorted([video, *files])


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("frames", [8, 25])
def test_ctrl_c_while_files_are_finished_loses_nothing(
    tracker, video, tmp_path, monkeypatch, capsys, ctrl_c, frames: int
) -> None:
    """Pressed again after the eighth frame, or for the first time after the last one."""

    def stop(frame: Frame, poses: Poses) -> None:
        if frame.number == frames:
            ctrl_c()

    for writer in (VideoWriter, JsonLinesWriter):
        close = writer.close
        monkeypatch.setattr(writer, "close", lambda self, close=close: (ctrl_c(), close(self), ctrl_c()))
    files = tmp_path / "drawn.mp4", tmp_path / "lines.jsonl"
    result = run_video(FrameSource(video), by_image(tracker), *files, on_frame=stop)
    assert (result.frames, result.interrupted) == (frames, True)
    assert len(read_frames(files[0])) == len(files[1].read_text().splitlines()) == frames
    assert sorted(tmp_path.iterdir()) == sorted([video, *files])
    assert capsys.readouterr().err.count("stopping") == (frames < 25)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_files_are_finished_before_a_stream_that_stalls(tracker, video, tmp_path, monkeypatch) -> None:
    """Ctrl-C, pressed again while the thread waits for a stream, which must stay open as long."""
    lines, closed, waiting = tmp_path / "lines.jsonl", [], []
    close = Prefetcher.close

    def press_again(self: Prefetcher) -> None:
        assert len(lines.read_text().splitlines()) == 8
        waiting.append(self)
        raise KeyboardInterrupt

    def stop(frame: Frame, poses: Poses) -> None:
        if frame.number == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Prefetcher, "close", press_again)
    source = FrameSource(video)
    monkeypatch.setattr(source, "close", lambda: closed.append(source))
    assert run_video(source, by_image(tracker), keypoints_path=lines, on_frame=stop).interrupted
    assert closed == []
    close(waiting[0])


def test_late_frames_of_live_sources_are_counted(tracker, video) -> None:
    def track(image, time):
        sleep(0.02)
        return tracker(image, time)

    source = FrameSource(video)
    source.is_live = True
    result = run_video(source, by_image(track))
    assert result.frames + result.dropped == 25
    assert result.dropped > 5


def test_the_slowest_stage_is_named(tracker, video) -> None:
    def track(image, time):
        sleep(0.02)
        return tracker(image, time)

    result = run_video(FrameSource(video, stride=5), by_image(track))
    assert result.bottleneck == "poses"
    assert result.stage_rates["poses"] < 50
    assert result.stage_rates["read"] > result.stage_rates["poses"]


def test_show_can_stop_video(tracker, video) -> None:
    shown: list[np.ndarray] = []

    def show(image: np.ndarray) -> bool:
        assert threading.current_thread() is threading.main_thread()
        shown.append(image)
        return len(shown) < 5

    result = run_video(FrameSource(video), by_image(tracker), show=show)
    assert result.interrupted
    assert len(shown) == 5
    assert shown[0].shape == (200, 320, 3)


def test_the_frame_rate_is_shown_but_not_written(tracker, video, tmp_path) -> None:
    shown: list[np.ndarray] = []
    run_video(
        FrameSource(video), by_image(tracker), tmp_path / "drawn.mp4", show=lambda image: shown.append(image) is None
    )
    corner = np.s_[:12, :60]  # black in the video
    assert shown[-1][corner].max() > 200
    assert max(frame[corner].max() for frame in read_frames(tmp_path / "drawn.mp4")) < 50


def test_ids_are_drawn_at_the_persons_and_not_at_their_boxes(video) -> None:
    keypoints = np.array([[[240, 120], [250, 130], [240, 150]]], np.float32)
    boxes = np.array([[20, 40, 310, 190]], np.float32)
    one = np.ones(1, np.float32)
    poses = Poses(
        keypoints, np.full((1, 3), 0.9, np.float32), boxes, one, numbered_skeleton(3), track_ids=np.array([5])
    )
    shown: list[np.ndarray] = []
    run_video(FrameSource(video), lambda frame: poses, show=lambda image: shown.append(image) is None)
    assert shown[0][95:120, 230:250].min(axis=-1).max() > 150  # white text
    assert shown[0][40:54, 20:29].max() < 50  # black in the video


def test_video_without_frames_is_an_error(tracker, video, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("posedy.inference.video_io.has_pyav", lambda: False)
    source = FrameSource(video)
    source._reader._capture.release()
    with pytest.raises(ValueError, match=r"made\.avi"):
        run_video(source, by_image(tracker), tmp_path / "drawn.mp4", tmp_path / "lines.jsonl")
    assert list(tmp_path.iterdir()) == [video]


def test_run_video_raises_write_errors(tracker, video, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("posedy.inference.video_writer.has_pyav", lambda: False)
    monkeypatch.setattr("posedy.inference.video_opencv.cv2.VideoWriter", FailingWriter)
    with pytest.raises(OSError, match=r"drawn\.mp4"):
        run_video(FrameSource(video), by_image(tracker), tmp_path / "drawn.mp4")
    with pytest.raises(ValueError, match=r"drawn\.avi"):
        run_video(FrameSource(video), by_image(tracker), tmp_path / "drawn.avi")


class FailingWriter:
    """An OpenCV writer that cannot open its file."""

    fourcc = staticmethod(cv2.VideoWriter.fourcc)

    def __init__(self, *arguments: object) -> None:
        pass

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory usage is read from /proc")
def test_memory_is_constant_over_5000_frames(tracker, make_video, tmp_path) -> None:
    corners = [[(20 + step % 90, 30.0), (230 - step % 70, 110.0)] for step in range(5000)]
    memory: list[int] = []

    def measure(frame: Frame, poses: Poses) -> None:
        if frame.number % 1000 == 999:
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    source = FrameSource(make_video(corners))
    run_video(source, by_image(tracker), tmp_path / "drawn.mp4", tmp_path / "lines.jsonl", on_frame=measure)
    assert len(memory) == 5
    assert max(memory[1:]) - memory[0] < 20 * 2**20
