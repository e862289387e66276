from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_io import VideoWriter


def gray_image(value: int) -> np.ndarray:
    return np.full((64, 64, 3), value, dtype=np.uint8)


def brightness_of(path: Path) -> list[int]:
    """Mean brightness of each frame of a video, rounded to a multiple of 40."""
    capture = cv2.VideoCapture(str(path))
    values = []
    while (read := capture.read())[0]:
        values.append(40 * round(float(read[1].mean()) / 40))
    capture.release()
    return values


@pytest.mark.parametrize("name", ["drawn.mp4", "drawn.webm"])
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.1, 0.2, 0.3], [40, 80, 120, 160]),  # constant rate
        ([7.0, 7.3, 7.4], [40, 40, 40, 80, 120]),  # slow camera or damaged frame
        ([0, 0.3, 0.31, 0.32, 0.5], [40, 40, 40, 160, 160, 200]),  # faster than the rate in between
        ([0, 0.1, 5000, 5000.1, 5000.05], [40, 80, 120, 160, 200]),  # invalid times
    ],
)
def test_video_writer_keeps_playback_speed(tmp_path: Path, name: str, times: list[float], expected: list[int]) -> None:
    writer = VideoWriter(tmp_path / name, 10.0)
    for index, time in enumerate(times):
        writer.write(gray_image(40 * (index + 1)), time)
    assert not (tmp_path / name).exists()
    writer.close()
    values = brightness_of(tmp_path / name)
    assert len(values) == len(expected)
    np.testing.assert_allclose(values, expected, atol=40 * 0.5)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_video_writer_resizes_frames_to_the_first(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "drawn.mp4", 10.0)
    writer.write(gray_image(80), 0)
    writer.write(np.full((128, 32, 3), 160, dtype=np.uint8), 0.1)
    writer.close()
    assert brightness_of(tmp_path / "drawn.mp4") == [80, 160]


def test_video_writer_rejects_other_suffixes_and_leaves_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"drawn\.avi"):
        VideoWriter(tmp_path / "drawn.avi", 10.0)
    VideoWriter(tmp_path / "drawn.mp4", 10.0).close()
    assert not list(tmp_path.iterdir())
