import json
from pathlib import Path

import numpy as np
import pytest

from posedy.cli.main import main
from posedy.inference.estimator import PoseEstimator
from posedy.inference.predict import predict_videos
from posedy.models.pretrained import save_weights


def test_the_others_are_done_where_one_cannot_be(dot_net, detector, make_video, tmp_path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    good = make_video([[(20 + 2.0 * step, 30.0)] for step in range(6)])
    told: list[str] = []
    sources = [tmp_path / "absent.mp4", good]
    assert predict_videos(sources, estimator, detector, tmp_path / "out", report=told.append) == sources[:1]
    assert "NOT DONE: no video at" in told[0]
    assert "6 frames in" in told[1]
    assert (tmp_path / "out/made.mp4").stat().st_size > 1000
    assert len((tmp_path / "out/made.jsonl").read_text().splitlines()) == 6


def test_a_video_is_never_written_over(dot_net, detector, make_video, tmp_path) -> None:
    video = make_video([[(20.0, 30.0)]] * 3).rename(tmp_path / "mine.mp4")
    told: list[str] = []
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    assert predict_videos([video], estimator, detector, tmp_path, report=told.append) == [video]
    assert "take the place of a video" in told[0]


def test_videos_of_one_name_have_drawings_of_their_own(dot_net, detector, make_video, tmp_path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    videos = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        videos.append(make_video([[(20.0, 30.0)]] * 3).rename(tmp_path / folder / "x.avi"))
    assert predict_videos(videos, estimator, detector, tmp_path / "out", report=lambda line: None) == []
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["x-2.jsonl", "x-2.mp4", "x.jsonl", "x.mp4"]


def test_where_no_window_can_be_it_says_so_and_goes_on(dot_net, detector, make_video, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    told: list[str] = []
    estimator = PoseEstimator(dot_net, device="cpu", flip=False)
    video = make_video([[(20.0, 30.0)]] * 3)
    assert predict_videos([video], estimator, detector, tmp_path / "out", show=True, report=told.append) == []
    assert "no window can be opened here" in told[0]


@pytest.fixture
def model(net, tmp_path: Path) -> str:
    save_weights(net, tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def test_demo_takes_videos_and_photos_together(model, make_video, draw_frame, tmp_path, capsys) -> None:
    import cv2

    video, photo = make_video([[(20.0, 30.0)]] * 3), tmp_path / "photo.png"
    cv2.imwrite(str(photo), draw_frame([(20.0, 30.0)]))
    words = ["demo", str(photo), str(video), "--whole", "--checkpoint", model, "--out", str(tmp_path / "out")]
    assert main([*words, "--no-flip", "--device", "cpu", "--no-smooth"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "keypoints.json",
        "made.jsonl",
        "made.mp4",
        "photo.jpg",
    ]
    line = json.loads((tmp_path / "out/made.jsonl").read_text().splitlines()[0])
    assert line["persons"][0]["box_xyxy"] == [0, 0, 320, 200]
    capsys.readouterr()
    assert main(["demo", str(video), "--box", "0,0,9,9", "--checkpoint", model, "--out", str(tmp_path / "o")]) == 1
    assert "persons move in videos" in capsys.readouterr().err


def test_a_camera_that_is_not_there_is_named(model, tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    assert main(["demo", "--webcam", "99", "--whole", "--checkpoint", model, "--out", out, "--device", "cpu"]) == 1
    assert "99: NOT DONE: camera 99 cannot be opened" in capsys.readouterr().out
    assert main(["demo", "--whole", "--checkpoint", model, "--out", out]) == 1
    assert "nothing to look at" in capsys.readouterr().err


def test_a_fake_camera_is_recorded(model, make_video, tmp_path, monkeypatch) -> None:
    """A video file in place of a device."""
    import cv2

    video, real = make_video([[(20.0, 30.0)]] * 5), cv2.VideoCapture
    monkeypatch.setattr(
        "posedy.inference.video_io.cv2.VideoCapture", lambda source: real(str(video) if source == 0 else source)
    )
    words = ["demo", "--webcam", "0", "--whole", "--checkpoint", model, "--out", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu", "--no-flip"]) == 0
    lines = (tmp_path / "out/camera-0.jsonl").read_text().splitlines()
    assert len(lines) == 5
    times = [json.loads(line)["time"] for line in lines]
    assert (np.diff(times) > 0).all()
