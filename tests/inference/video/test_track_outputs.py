import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.cli.main import main
from posedy.inference import track_outputs
from posedy.inference.contact_sheet import write_contact_sheet
from posedy.inference.estimator import PoseEstimator
from posedy.inference.predict_videos import predict_videos
from posedy.inference.track_outputs import TrackOutputs
from posedy.inference.track_table import TrackTable
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_pipeline import VideoResult
from posedy.models.network_file import save_weights
from posedy.poses import Poses
from posedy.skeleton import COCO17
from tests.inference.video.clips import write_clip


def test_offline_smoothing_replaces_the_keypoints_and_the_drawing(dot_net, detector, make_video, tmp_path) -> None:
    rng = np.random.default_rng(0)
    source = make_video([[(20 + 2 * step + rng.normal(), 30 + rng.normal())] for step in range(20)])
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    video, quiet = tmp_path / "out/made.mp4", [].append
    assert predict_videos([source], estimator, detector, tmp_path / "out", smooth=False, stride=2, report=quiet) == []
    raw = TrackTable.read(video.with_suffix(".jsonl"), dot_net.skeleton)
    assert raw.frames.tolist() == list(range(0, 20, 2))
    video.unlink()
    lines: list[str] = []
    outputs = TrackOutputs(smooth=True, formats=["csv"])
    outputs.check([video])
    outputs.write(source, video, dot_net.skeleton, stride=2, report=lines.append)
    smoothed = TrackTable.read(video.with_suffix(".jsonl"), dot_net.skeleton)
    assert smoothed.track_ids.tolist() == raw.track_ids.tolist()
    assert 0.1 < np.abs(smoothed.keypoints - raw.keypoints).max() < 0.15 * 100
    assert np.diff(smoothed.keypoints, 2, axis=0).std() < 0.8 * np.diff(raw.keypoints, 2, axis=0).std()
    frames = FrameSource(video)
    drawn = [frame.image for frame in frames]
    frames.close()
    assert len(drawn) == 10
    # keypoints lie on drawn limbs
    for image, (x, y) in zip(drawn, smoothed.keypoints[:, 1], strict=True):
        assert image[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].max() > 120
    assert re.search(rf"drawn in \d+\.\d s -> {re.escape(str(video))}$", lines[0])
    assert (tmp_path / "out/made.csv").read_text().count("\n") == 1 + 10 * 3


def test_cameras_are_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "camera-0.jsonl").write_text('{"frame": 0, "time": 0.0, "persons": []}\n')
    lines: list[str] = []
    outputs = TrackOutputs(smooth=True, formats=["trc"])
    outputs.write(0, tmp_path / "camera-0.mp4", COCO17, report=lines.append)
    assert "before smoothing" in lines[0]
    assert not (tmp_path / "camera-0.mp4").exists()


@pytest.mark.parametrize(("count", "shape", "last"), [(1, (200, 320), 0), (5, (400, 1280), 4), (60, (600, 1280), 56)])
def test_contact_sheets_have_up_to_twelve_frames(
    count: int, shape: tuple[int, int], last: int, make_video, tmp_path
) -> None:
    video = make_video([[(20 + 4.0 * step, 30.0)] for step in range(count)])
    write_contact_sheet(video, tmp_path / "sheet.jpg")
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert sheet.shape[:2] == shape
    # the red dot of the last frame
    x, y = 20 + 4 * last + 14 + 320 * ((min(count, 12) - 1) % 4), shape[0] - 200 + 30 + 16
    assert sheet[y, x, 2] > 150 > sheet[y, x, 0]


def test_contact_sheets_of_narrow_frames_are_small(tmp_path: Path) -> None:
    """Three rows of frames that are 320 pixels wide would be higher than JPEG allows."""
    write_contact_sheet(write_clip(tmp_path / "tall.mkv", size=(8, 1200), num_frames=12), tmp_path / "sheet.jpg")
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (3 * 640, 4 * 4, 3)


@pytest.fixture
def smooth_offline(dot_net, detector, make_video, tmp_path) -> Callable[..., list[str]]:
    """`smooth_offline()` predicts two videos of 20 frames with offline smoothing and csv; returns what is reported."""
    sources = [make_video([[(20.0 + step, 30.0)] for step in range(20)], name) for name in ("first.avi", "second.avi")]

    def predict() -> list[str]:
        lines: list[str] = []
        estimator, outputs = PoseEstimator(dot_net, device="cpu", flip=False), TrackOutputs(True, ["csv"])
        predict_videos(
            sources, estimator, detector, tmp_path / "out", smooth=False, tracks=outputs, report=lines.append
        )
        return lines[1:]

    return predict


@pytest.fixture
def end_drawing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """`end_drawing(number, error)` raises an error before this frame of the second pass."""

    def set_up(number: int, error: BaseException) -> None:
        poses_of, calls = TrackTable.poses_of, iter(range(1000))

        def fail(table: TrackTable, rows: np.ndarray) -> Poses:
            if next(calls) == number:
                raise error
            return poses_of(table, rows)

        run_video = track_outputs.run_video

        def run(*arguments: object, **options: object) -> VideoResult:
            with monkeypatch.context() as patch:
                patch.setattr(TrackTable, "poses_of", fail)
                return run_video(*arguments, **options)

        monkeypatch.setattr(track_outputs, "run_video", run)

    return set_up


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_ctrl_c_while_drawing_stops_and_says_how_much_was_drawn(smooth_offline, end_drawing, tmp_path) -> None:
    end_drawing(8, KeyboardInterrupt())
    _, smoothed, tracks, left_out = smooth_offline()
    assert "1 of 2 videos" in left_out
    assert "interrupted, 8 of 20 frames drawn in" in smoothed
    assert "first.csv" in tracks
    assert sorted(contents_of(tmp_path / "out")) == ["first.csv", "first.jsonl", "first.mp4"]
    assert len(list(FrameSource(tmp_path / "out/first.mp4"))) == 8
    assert len(TrackTable.read(tmp_path / "out/first.jsonl").frames) == 20


def test_ctrl_c_before_the_first_drawn_frame_leaves_an_earlier_drawing(smooth_offline, end_drawing, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/first.mp4").write_text("earlier")
    end_drawing(0, KeyboardInterrupt())
    assert f"{tmp_path}/out/first.mp4 was not written" in smooth_offline()[1]
    assert (tmp_path / "out/first.mp4").read_text() == "earlier"


@pytest.mark.parametrize("has_earlier", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_full_disk_while_drawing_mixes_no_files_of_two_runs(
    smooth_offline, end_drawing, tmp_path, has_earlier: bool
) -> None:
    out = tmp_path / "out"
    if has_earlier:
        smooth_offline()
    earlier = contents_of(out) if has_earlier else {}
    end_drawing(8, OSError(f"{out}/first.mp4 cannot be written (No space left on device)"))
    lines = smooth_offline()
    assert any("first.avi: FAILED" in line and "first.mp4 cannot be written" in line for line in lines)
    first = {name: content for name, content in contents_of(out).items() if name.startswith("first")}
    if has_earlier:
        assert first == {name: content for name, content in earlier.items() if name.startswith("first")}
    else:  # the keypoints took long
        assert list(first) == ["first.jsonl"]
        assert any("keypoints before smoothing" in line for line in lines)
    assert (out / "second.mp4").exists()


def test_frames_are_drawn_with_the_poses_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in files are rounded, so that those of two frames may be equal."""
    found: list[int] = []

    def run(source: object, find_poses: Callable[[Frame], Poses], *_: object, **__: object) -> VideoResult:
        for number in (4, 7, 8):
            found.append(len(find_poses(Frame(number, 0.00003, np.zeros((9, 9, 3), np.uint8)))))
        return VideoResult(frames=3)

    monkeypatch.setattr(track_outputs, "run_video", run)
    monkeypatch.setattr(track_outputs, "FrameSource", lambda *_, **__: None)
    points = {name: {"x": 1, "y": 1, "score": 1} for name in COCO17.keypoints}
    nobody, body = [], [{"id": 1, "score": 1, "box_score": 1, "box_xyxy": [0, 0, 9, 9], "keypoints": points}]
    records = [{"frame": number, "time": 0.0, "persons": body if number == 7 else nobody} for number in (4, 7, 8)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    TrackOutputs(smooth=True).write(Path("a.avi"), tmp_path / "a.mp4", COCO17, report=lambda line: None)
    assert found == [0, 1, 0]


def test_predict_command_writes_tracks(net, make_video, tmp_path, capsys) -> None:
    save_weights(net, tmp_path / "net.safetensors")
    video, out = make_video([[(20.0, 30.0)]] * 4), tmp_path / "out"
    common = ["predict", str(video), "--checkpoint", str(tmp_path / "net.safetensors"), "--device", "cpu", "--no-flip"]
    common += ["--full-image", "--runtime", "torch", "--out", str(out)]
    options = ["--smooth", "offline", "--tracks", "csv,trc,openpose", "--plots", "--from", "0.03", "--to", "0.1"]
    assert main([*common, *options]) == 0
    assert "smoothed offline" in capsys.readouterr().out
    records = [json.loads(line) for line in (out / "made.jsonl").read_text().splitlines()]
    assert [record["frame"] for record in records] == [1, 2]
    assert {path.name for path in out.iterdir()} == {
        *("made.mp4", "made.jsonl", "made.csv", "made-trc", "made-openpose"),
        *("made-frames.jpg", "made-angles.csv", "made-angles.png"),
    }
    assert cv2.VideoCapture(str(out / "made.mp4")).read()[0]


def test_a_failing_output_fails_the_video(net, make_video, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(TrackOutputs, "write", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full: made.csv")))
    assert predict(net, tmp_path, make_video([[(20.0, 30.0)]])) == 1
    assert "FAILED: disk full: made.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["a.mp4", "--tracks", "csv,cvs"], ["--tracks", "'cvs'", "csv"]),
        (["a.mp4", "--tracks", ""], ["--tracks", "wide-csv"]),
        (["a.mp4", "--from", "2", "--to", "1"], ["--from", "--to 1"]),
        (["a.mp4", "--from", "nan"], ["--from", "nan"]),
        (["a.mp4", "--stride", "0"], ["--stride", "0"]),
        (["a.mp4", "--smooth", "offine"], ["--smooth", "offline"]),
        (["a.mp4", "--smooth", "online", "--no-smooth"], ["--no-smooth", "--smooth"]),
        (["a.jpg", "--tracks", "csv"], ["--tracks", "video"]),
        (["a.jpg", "--plots"], ["--plots", "video"]),
        (["a.jpg", "--smooth", "offline"], ["--smooth offline", "video"]),
        (["a.jpg", "--no-smooth"], ["--smooth none", "video"]),
        (["a.jpg", "--detect-every", "5"], ["--detect-every", "video"]),
        (["a.jpg", "--show"], ["--show", "video"]),
        (["a.mp4", "--detect-every", "0"], ["--detect-every", "0"]),
        (["a.jpg", "--box", "1,2,3,4", "--box-threshold", "0.5"], ["--box-threshold", "--box"]),
    ],
)
def test_invalid_options_are_errors_of_usage(
    options: list[str], expected: list[str], tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["predict", *options])
    assert caught.value.code == 2
    message = capsys.readouterr().err.rpartition("error: ")[2]
    assert all(part in message for part in expected), message


def test_files_of_an_earlier_run_are_left_after_an_interruption(net, make_video, tmp_path, monkeypatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/second.jsonl").write_text("of an earlier run")
    first = make_video([[(20.0, 30.0)]])
    second = first.with_name("second.avi")
    second.write_bytes(first.read_bytes())
    monkeypatch.setattr(
        "posedy.inference.predict_videos.run_video", lambda *arguments, **_: interrupt(arguments[0], arguments[3])
    )
    assert predict(net, tmp_path, first, second) == 1
    assert (tmp_path / "out/made.csv").is_file()
    assert (tmp_path / "out/second.jsonl").read_text() == "of an earlier run"
    assert not (tmp_path / "out/second.csv").exists()


def interrupt(source: FrameSource, lines: Path) -> VideoResult:
    """Ends a video after its first frame, as Ctrl-C does."""
    source.close()
    lines.write_text('{"frame": 0, "time": 0.0, "persons": []}\n')
    return VideoResult(frames=1, interrupted=True)


def predict(net, folder: Path, *videos: Path) -> int:
    """Predicts videos with `--tracks csv`; returns the exit status."""
    save_weights(net, folder / "net.safetensors")
    options = ["--checkpoint", str(folder / "net.safetensors"), "--device", "cpu", "--full-image", "--tracks", "csv"]
    return main(["predict", *map(str, videos), *options, "--out", str(folder / "out")])
