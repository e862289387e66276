from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_io import VideoRecording


def shade(value: int) -> np.ndarray:
    return np.full((64, 64, 3), value, dtype=np.uint8)


def shades_of(path: Path) -> list[int]:
    """The brightness of each frame of a video, to the next multiple of 40."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(40 * round(float(read[1].mean()) / 40))
    capture.release()
    return found


@pytest.mark.parametrize("name", ["drawn.mp4", "drawn.webm"])
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.1, 0.2, 0.3], [40, 80, 120, 160]),  # at the rate
        ([7.0, 7.3, 7.4], [40, 40, 40, 80, 120]),  # a slow camera, or a damaged frame
        ([0, 0.3, 0.31, 0.32, 0.5], [40, 40, 40, 160, 160, 200]),  # faster than the rate for a while
        ([0, 0.1, 5000, 5000.1, 5000.05], [40, 80, 120, 160, 200]),  # times that cannot be
    ],
)
def test_it_plays_as_fast_as_it_was(tmp_path: Path, name: str, times: list[float], expected: list[int]) -> None:
    recording = VideoRecording(tmp_path / name, 10.0)
    for index, time in enumerate(times):
        recording.write(shade(40 * (index + 1)), time)
    assert not (tmp_path / name).exists()
    recording.close()
    found = shades_of(tmp_path / name)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=40 * 0.5)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    recording = VideoRecording(tmp_path / "drawn.mp4", 10.0)
    recording.write(shade(80), 0)
    recording.write(np.full((128, 32, 3), 160, dtype=np.uint8), 0.1)
    recording.close()
    assert shades_of(tmp_path / "drawn.mp4") == [80, 160]


def test_other_endings_are_refused_and_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as NAME\.mp4 or NAME\.webm, got .*drawn\.avi"):
        VideoRecording(tmp_path / "drawn.avi", 10.0)
    VideoRecording(tmp_path / "drawn.mp4", 10.0).close()
    assert not list(tmp_path.iterdir())
