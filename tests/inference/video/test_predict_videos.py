import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posedy.cli.main import main
from posedy.inference.detectors import base as detectors
from posedy.inference.estimator import PoseEstimator
from posedy.inference.predict_videos import _format_video_result, check_video_outputs, predict_videos
from posedy.inference.track_outputs import TrackOutputs
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import VideoResult
from posedy.models.network_file import save_weights


def test_other_videos_are_predicted_after_a_failure(dot_net, detector, make_video, tmp_path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    good = make_video([[(20 + 2.0 * step, 30.0)] for step in range(6)])
    lines: list[str] = []
    sources = [tmp_path / "absent.mp4", good]
    assert predict_videos(sources, estimator, detector, tmp_path / "out", report=lines.append) == sources[:1]
    assert lines[0] == estimator.description
    assert "FAILED" in lines[1]
    assert "absent.mp4" in lines[1]
    assert "6 frames" in lines[2]
    assert (tmp_path / "out/made.mp4").stat().st_size > 1000
    assert len((tmp_path / "out/made.jsonl").read_text().splitlines()) == 6


def test_input_videos_are_never_overwritten(dot_net, detector, make_video, tmp_path) -> None:
    video = make_video([[(20.0, 30.0)]] * 3).rename(tmp_path / "mine.mp4")
    content = video.read_bytes()
    lines: list[str] = []
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    assert predict_videos([video], estimator, detector, tmp_path, report=lines.append) == [video]
    assert "mine.mp4" in lines[1]
    assert video.read_bytes() == content


def test_earlier_results_stay_when_the_disk_is_full(dot_net, detector, make_video, tmp_path) -> None:
    """A limit of the size of files, which the system reports as it does a full disk."""
    resource = pytest.importorskip("resource")
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    video = make_video([[(20.0 + number, 30.0)] for number in range(30)])
    files = [tmp_path / "made.mp4", tmp_path / "made.jsonl"]
    for file in files:
        file.write_text("earlier")
    lines: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        assert predict_videos([video], estimator, detector, tmp_path, report=lines.append) == [video]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "FAILED" in lines[1]
    assert "made." in lines[1].split("FAILED")[1]
    assert [file.read_text() for file in files] == ["earlier"] * 2
    assert sorted(tmp_path.iterdir()) == sorted([video, *files])


def test_the_bottleneck_is_named_and_a_range_is_predicted(dot_net, detector, make_video, tmp_path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    video, lines = make_video([[(20.0, 30.0)]] * 30), []
    options = {"start": 0.2, "end": 0.8, "stride": 3, "report": lines.append}
    assert predict_videos([video], estimator, detector, tmp_path / "out", **options) == []
    written = [json.loads(line) for line in (tmp_path / "out/made.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in written] == [6, 9, 12, 15, 18, 21]
    assert written[0]["time"] == pytest.approx(0.2)
    assert "6 frames in" in lines[1]
    assert "bottleneck: " in lines[1]


def test_detector_may_be_a_name(dot_net, make_video, tmp_path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    video, lines = make_video([[(20.0, 30.0)]]), []
    assert predict_videos([video], estimator, "full-image", tmp_path / "out", report=lines.append) == []
    assert lines[1].startswith(f"{video}: 1 frame in ")
    line = (tmp_path / "out/made.jsonl").read_text().splitlines()[0]
    assert [person["box_xyxy"] for person in json.loads(line)["persons"]] == [[0, 0, 320, 200]]
    with pytest.raises(ValueError, match="'unknown'"):
        predict_videos([video], estimator, "unknown", tmp_path / "out")


def test_videos_with_equal_names_get_different_outputs(dot_net, detector, make_video, tmp_path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    videos = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        videos.append(make_video([[(20.0, 30.0)]] * 3).rename(tmp_path / folder / "x.avi"))
    assert predict_videos(videos, estimator, detector, tmp_path / "out", report=lambda line: None) == []
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["x-2.jsonl", "x-2.mp4", "x.jsonl", "x.mp4"]


@pytest.mark.parametrize(
    ("names", "options", "drawings", "collision"),
    [
        (["v.mp4", "v-wide.mov"], {"formats": ["csv", "wide-csv"]}, [], "v-wide.csv"),
        (["v-ANGLES.mp4", "v.mp4"], {"formats": ["csv"], "plots": True}, [], "v-angles.csv"),
        (["v.mp4"], {"plots": True}, ["v-frames.jpg"], "v-frames.jpg"),
        (["v.mp4", "v-wide.mov", "v.avi"], {"formats": ["csv"]}, ["v.jpg"], None),
    ],
)
def test_files_of_two_inputs_with_the_same_name_are_found_before_the_run(
    names: list[str], options: dict, drawings: list[str], collision: str | None, tmp_path: Path
) -> None:
    sources, others = [Path(name) for name in names], [tmp_path / name for name in drawings]
    if collision is None:
        check_video_outputs(sources, tmp_path, TrackOutputs(**options), others)
        return
    with pytest.raises(ValueError, match=f"{collision} would be written for v.* and for"):
        check_video_outputs(sources, tmp_path, TrackOutputs(**options), others)


def test_predict_command_finds_collisions_of_images_and_videos(make_video, draw_frame, tmp_path, capsys) -> None:
    video, image = make_video([[(20.0, 30.0)]]), tmp_path / "made-frames.png"
    cv2.imwrite(str(image), draw_frame([(20.0, 30.0)]))
    argv = ["predict", str(video), str(image), "--full-image", "--plots", "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    assert "made-frames.jpg would be written for" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dropped_frames_are_named() -> None:
    result = VideoResult(frames=30, dropped=12, seconds=1.0)
    assert "30 frames, 12 late frames dropped in 1.0 s" in _format_video_result("rtsp://camera", result, [])


def test_unexpected_errors_of_one_video_do_not_end_the_others(
    dot_net, detector, make_video, tmp_path, monkeypatch
) -> None:
    sources = [make_video([[(20.0, 30.0)]] * 2, name) for name in ("a.avi", "b.avi")]
    errors = iter([RuntimeError("no such glyph"), KeyError("b")])
    monkeypatch.setattr(TrackOutputs, "write", lambda *_, **__: (_ for _ in ()).throw(next(errors)))
    lines: list[str] = []
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    options = {"tracks": TrackOutputs(), "report": lines.append}
    assert predict_videos(sources, estimator, detector, tmp_path / "out", **options) == sources
    assert "a.avi: FAILED: RuntimeError: no such glyph" in lines[2]
    assert "b.avi: FAILED: KeyError: 'b'" in lines[4]


def test_ctrl_c_before_the_first_frame_leaves_everything(dot_net, make_video, tmp_path) -> None:
    class StoppingDetector:
        def detect(self, image: np.ndarray) -> tuple[list, list]:
            raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    (tmp_path / "out/made.jsonl").write_text("earlier")
    source, lines = make_video([[(20.0, 30.0)]] * 3), []
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    options = {"tracks": TrackOutputs(True, ["csv"], True), "report": lines.append}
    assert predict_videos([source], estimator, StoppingDetector(), tmp_path / "out", **options) == [source]
    assert lines[1:] == [f"{source}: interrupted before the first frame, so that nothing was written"]
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["earlier"]


@pytest.mark.parametrize("is_live", [True, False])
def test_ctrl_c_counts_the_videos_that_are_left_out(dot_net, make_video, tmp_path, monkeypatch, is_live) -> None:
    class StoppingDetector:
        calls = 0

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return [], []

    class Source(FrameSource):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.is_live = is_live

    monkeypatch.setattr("posedy.inference.predict_videos.FrameSource", Source)
    sources = [make_video([[(20.0, 30.0)]] * 5, name) for name in ("a.avi", "b.avi", "c.avi")]
    estimator, lines = PoseEstimator(dot_net, device="cpu", flip=False), []
    options = {"detect_every": 1, "report": lines.append}
    unfinished = predict_videos(sources, estimator, StoppingDetector(), tmp_path / "out", **options)
    assert unfinished == (sources[1:] if is_live else sources)
    assert "2 of 3 videos" in lines[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jsonl", "a.mp4"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_one_line_on_terminals(dot_net, detector, make_video, tmp_path, monkeypatch, is_terminal) -> None:
    error = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", error)
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    source = make_video([[(20.0, 30.0)]] * 5)
    predict_videos([source], estimator, detector, tmp_path / "out", report=lambda line: None)
    assert ("made.avi:" in error.getvalue() and "/5 " in error.getvalue()) is is_terminal
    assert "\n" not in error.getvalue()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_sigterm_deletes_temporary_files(model, make_video, tmp_path, monkeypatch) -> None:
    class StoppedDetector:
        def detect(self, image: np.ndarray) -> tuple[list, list]:
            os.kill(os.getpid(), signal.SIGTERM)
            return [], []

    monkeypatch.setitem(detectors._DETECTORS, "stopped", StoppedDetector)
    before = signal.getsignal(signal.SIGTERM)
    argv = ["predict", str(make_video([[(20.0, 30.0)]] * 3)), "--detector", "stopped", "--checkpoint", model]
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--no-flip", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert caught.value.code == 128 + signal.SIGTERM
    assert list((tmp_path / "out").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGHUP")
@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_closed_terminal_keeps_the_results(model, make_video, tmp_path, monkeypatch, is_ignored: bool) -> None:
    """As Ctrl-C does; `nohup` ignores the signal."""

    class StoppedDetector:
        calls = 0

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            self.calls += 1
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGHUP)
            return [], []

    monkeypatch.setitem(detectors._DETECTORS, "stopped", StoppedDetector)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    argv = ["predict", str(make_video([[(20.0, 30.0)]] * 5)), "--detector", "stopped", "--checkpoint", model]
    try:
        status = main([*argv, "--detect-every", "1", "--device", "cpu", "--out", str(tmp_path / "out")])
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert status == (0 if is_ignored else 1)
    assert len((tmp_path / "out/made.jsonl").read_text().splitlines()) == (5 if is_ignored else 2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["made.jsonl", "made.mp4"]


def test_videos_are_predicted_without_a_display(dot_net, detector, make_video, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    lines: list[str] = []
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    video = make_video([[(20.0, 30.0)]] * 3)
    assert predict_videos([video], estimator, detector, tmp_path / "out", show=True, report=lines.append) == []
    assert "window" in lines[0]
    assert "3 frames" in lines[2]


@pytest.fixture
def model(net, tmp_path: Path) -> str:
    save_weights(net, tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def test_predict_command_accepts_images_and_videos(model, make_video, draw_frame, tmp_path, capsys) -> None:
    video, image = make_video([[(20.0, 30.0)]] * 3), tmp_path / "image.png"
    cv2.imwrite(str(image), draw_frame([(20.0, 30.0)]))
    argv = ["predict", str(image), str(video), "--full-image", "--checkpoint", model, "--out", str(tmp_path / "out")]
    assert main([*argv, "--no-flip", "--device", "cpu", "--no-smooth"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "image.jpg",
        "keypoints.json",
        "made.jsonl",
        "made.mp4",
    ]
    line = json.loads((tmp_path / "out/made.jsonl").read_text().splitlines()[0])
    assert line["persons"][0]["box_xyxy"] == [0, 0, 320, 200]
    described = [line for line in capsys.readouterr().out.splitlines() if "flip test" in line]
    assert described == ["dy_mobilenetv2_035-dy_fpn, 17 keypoints, torch on cpu, flip test off"] * 2
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(video), "--box", "0,0,9,9", "--checkpoint", model, "--out", str(tmp_path / "o")])
    assert caught.value.code == 2
    assert "--box" in capsys.readouterr().err


def test_predict_command_takes_folders_and_files_of_any_name(model, make_video, draw_frame, tmp_path, capsys) -> None:
    """A folder with an image and a video; videos without a suffix, and with a name that looks like a URL."""
    folder = tmp_path / "folder"
    folder.mkdir()
    make_video([[(20.0, 30.0)]] * 2).rename(folder / "clip.avi")
    cv2.imwrite(str(folder / "image.png"), draw_frame([(20.0, 30.0)]))
    files = [make_video([[(20.0, 30.0)]] * 2).rename(tmp_path / name) for name in ("no_suffix", "10:30 cam:1.avi")]
    options = ["--full-image", "--checkpoint", model, "--no-flip", "--device", "cpu"]
    inputs = [str(folder), *map(str, files)]
    assert main(["predict", *inputs, *options, "--out", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    videos = {f"{stem}.{suffix}" for stem in ("clip", "no_suffix", "10:30 cam:1") for suffix in ("mp4", "jsonl")}
    assert names == {"image.jpg", "keypoints.json", *videos}
    # an unreachable stream is one line
    assert main(["predict", "rtsp://127.0.0.1:1/live", *options, "--out", str(tmp_path / "out")]) == 1
    assert "rtsp://127.0.0.1:1/live: FAILED" in capsys.readouterr().out


def test_one_detector_is_used_for_images_and_videos(model, make_video, draw_frame, tmp_path, monkeypatch) -> None:
    class FixedDetector:
        number = 0

        def __init__(self) -> None:
            FixedDetector.number += 1

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [[10, 20, 120, 140], [0, 0, 50, 50]], [0.9, 0.5]

    monkeypatch.setitem(detectors._DETECTORS, "fixed", FixedDetector)
    image, out = tmp_path / "image.png", tmp_path / "out"
    cv2.imwrite(str(image), draw_frame([(20.0, 30.0)]))
    inputs = [str(image), str(make_video([[(20.0, 30.0)]] * 2))]
    options = ["--checkpoint", model, "--device", "cpu", "--no-flip", "--box-threshold", "0.6"]
    assert main(["predict", *inputs, "--detector", "fixed", "--out", str(out), *options]) == 0
    assert FixedDetector.number == 1
    (record,) = json.loads((out / "keypoints.json").read_text())
    lines = (out / "made.jsonl").read_text().splitlines()
    for persons in (record["persons"], json.loads(lines[0])["persons"]):
        assert [person["box_xyxy"] for person in persons] == [[10, 20, 120, 140]]


def test_missing_camera_and_missing_input_are_errors(model, tmp_path, capsys, monkeypatch) -> None:
    out = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        # the camera is opened before anything is downloaded or loaded
        patch.setattr("posedy.inference.detectors.create_detector", None)
        patch.setattr("posedy.inference.estimator.load_model", None)
        assert main(["predict", "--webcam", "99", "--checkpoint", model, "--out", out, "--device", "cpu"]) == 1
    assert "camera 99" in capsys.readouterr().err
    assert not Path(out).exists()
    with pytest.raises(SystemExit) as caught:
        main(["predict", "--full-image", "--checkpoint", model, "--out", out])
    assert caught.value.code == 2
    assert "no input" in capsys.readouterr().err


@pytest.mark.parametrize("inputs", [["clip.mp4"], ["--webcam", "0"]])
@pytest.mark.parametrize("interval", ["0", "-3"])
def test_detection_intervals_below_1_are_wrong_usage(inputs, interval, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["predict", *inputs, "--full-image", f"--detect-every={interval}"])
    assert caught.value.code == 2
    assert f"--detect-every: expected at least 1, got {interval}" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["udp://user@camera:554/stream", "file:///clip.mp4", "ftp://example.com/image.jpg"])
def test_urls_are_rejected_by_name(url, tmp_path, capsys) -> None:
    assert main(["predict", "image.jpg", url, "--full-image", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"URL {url}" in error
    assert "PoseEstimator.track" in error
