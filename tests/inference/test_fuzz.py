"""Damaged photos and videos: right answers or errors in words, no crash, no hang, no memory beyond a bound."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_io import VideoRecording
from tools.lab.synthetic.film import draw_film

pytestmark = pytest.mark.slow
Damage = Callable[[bytes, np.random.Generator], bytes]
LARGEST_MB = 1000
SECONDS = 300

# reads each file in a process of its own, which a crash ends, and says how it went
_READER = """
import resource, sys, warnings
from pathlib import Path
from posedy.images import to_rgb
from posedy.inference.video_io import FrameSource
warnings.simplefilter("ignore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in sys.stdin.read().splitlines():
    path = Path(line)
    print("begin", path.name, flush=True)
    try:
        if "photo" in path.name:
            image = to_rgb(path)
            assert image.ndim == 3 and image.dtype.name == "uint8", image.shape
        else:
            source = FrameSource(path)
            times = [frame.time for frame in source]
            source.close()
            assert times == sorted(set(times)), times
            assert len(times) < 1000
        print("read", path.name)
    except (OSError, ValueError) as error:
        assert path.name in str(error) and len(str(error)) < 500, error
        print("refused", path.name)
print("memory", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def flipped_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 60)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flipped_header(data: bytes, rng: np.random.Generator) -> bytes:
    return flipped_bits(data[:200], rng) + data[200:]


def zeros(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data)))
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def huge(data: bytes, rng: np.random.Generator) -> bytes:
    """The picture's size, where the header has it, as if it were enormous."""
    width, height = (320, 180)
    changed = data
    for order in ("big", "little"):
        for size in (2, 4):
            for side in (width, height):
                large = int(rng.integers(20_000, 65_000))
                changed = changed.replace(side.to_bytes(size, order), large.to_bytes(size, order), 1)
    return changed


DAMAGES: list[Damage] = [cut, flipped_bits, flipped_header, zeros, huge]


@pytest.mark.parametrize("kind", ["photo", "video"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    originals = _photos(tmp_path) if kind == "photo" else _videos(tmp_path)
    paths = []
    for number in range(250):
        original = originals[number % len(originals)]
        damage = DAMAGES[number // len(originals) % len(DAMAGES)]
        suffix = original.suffix if number % 7 else str(rng.choice([".jpg", ".png", ".mp4", ".avi", ".txt", ""]))
        path = tmp_path / f"{kind}-{number}-{damage.__name__}{suffix}"
        path.write_bytes(b"" if number % 50 == 49 else damage(original.read_bytes(), rng))
        paths.append(path)
    reader = subprocess.run(
        [sys.executable, "-c", _READER],
        input="\n".join(map(str, paths)),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    lines = reader.stdout.splitlines()
    assert reader.returncode == 0, f"{lines[-1:]}: {reader.stderr[-2000:]}"
    outcomes = [line.split()[0] for line in lines]
    assert outcomes.count("read") + outcomes.count("refused") == len(paths)
    assert outcomes.count("read") > 20
    assert outcomes.count("refused") > 20
    assert float(lines[-1].split()[1]) < LARGEST_MB


def _photos(folder: Path) -> list[Path]:
    image = next(draw_film(0, 1, 2, (320, 180))).image
    paths = [folder / f"original{suffix}" for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff")]
    for path in paths:
        assert cv2.imwrite(str(path), image)
    return paths


def _videos(folder: Path) -> list[Path]:
    paths = [folder / f"original{suffix}" for suffix in (".mp4", ".webm")]
    for path in paths:
        recording = VideoRecording(path, 30.0)
        for number, frame in enumerate(draw_film(0, 12, 2, (320, 180))):
            recording.write(frame.image, number / 30)
        recording.close()
    writer = cv2.VideoWriter(str(folder / "original.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (320, 180))
    for frame in draw_film(0, 12, 2, (320, 180)):
        writer.write(frame.image)
    writer.release()
    return [*paths, folder / "original.avi"]
