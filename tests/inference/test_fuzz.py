"""Damaged images and videos are read or rejected with a message: no crash, no hang, bounded memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_writer import VideoWriter
from tools.lab.synthetic.video import generate_video

pytestmark = pytest.mark.slow
Damage = Callable[[bytes, np.random.Generator], bytes]
MAX_MEMORY_MB = 1000
TIMEOUT = 300
SIZE = (320, 180)

# Runs in a separate process, so that a crash does not end the tests, and prints the result for each file.
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
        if "image" in path.name:
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
        print("rejected", path.name)
print("memory", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for index in rng.integers(len(data), size=rng.integers(1, 60)):
        changed[index] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_header_bits(data: bytes, rng: np.random.Generator) -> bytes:
    return flip_bits(data[:200], rng) + data[200:]


def zero_range(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data)))
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def enlarge_header_size(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace the width and height in the header by huge numbers."""
    changed = data
    for order in ("big", "little"):
        for size in (2, 4):
            for side in SIZE:
                large = int(rng.integers(20_000, 65_000))
                changed = changed.replace(side.to_bytes(size, order), large.to_bytes(size, order), 1)
    return changed


DAMAGES: list[Damage] = [truncate, flip_bits, flip_header_bits, zero_range, enlarge_header_size]


@pytest.mark.parametrize("kind", ["image", "video"])
def test_damaged_files_are_read_or_rejected(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    originals = _write_images(tmp_path) if kind == "image" else _write_videos(tmp_path)
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
        timeout=TIMEOUT,
        check=False,
    )
    lines = reader.stdout.splitlines()
    assert reader.returncode == 0, f"{lines[-1:]}: {reader.stderr[-2000:]}"
    results = [line.split()[0] for line in lines]
    assert results.count("read") + results.count("rejected") == len(paths)
    assert results.count("read") > 20
    assert results.count("rejected") > 20
    assert float(lines[-1].split()[1]) < MAX_MEMORY_MB


def _write_images(folder: Path) -> list[Path]:
    image = next(generate_video(0, 1, 2, SIZE)).image
    paths = [folder / f"original{suffix}" for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff")]
    for path in paths:
        assert cv2.imwrite(str(path), image)
    return paths


def _write_videos(folder: Path) -> list[Path]:
    paths = [folder / f"original{suffix}" for suffix in (".mp4", ".webm")]
    for path in paths:
        video = VideoWriter(path, 30.0)
        for number, frame in enumerate(generate_video(0, 12, 2, SIZE)):
            video.write(frame.image, number / 30)
        video.close()
    writer = cv2.VideoWriter(str(folder / "original.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, SIZE)
    for frame in generate_video(0, 12, 2, SIZE):
        writer.write(frame.image)
    writer.release()
    return [*paths, folder / "original.avi"]
