"""Odd and damaged images with the person detector: poses or a clear error, bounded memory, and no network access."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posedy.cli.main import main
from posedy.inference.detectors import PersonDetector
from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet

MINI = Path(__file__).parents[2] / "data/coco_mini/val2017"
PERSONS = MINI / "000000085772.jpg"  # 640x427
LARGE = (12_000, 9_000)
# the image itself has 309 MB
MAX_MEMORY_MB = 1000
ODD_SIZES = [(1, 1), (1, 10_000), (10_000, 1), (20, 4000), (4000, 20), (33, 3)]  # (width, height)

Image = NDArray[np.uint8]
Damage = Callable[[bytes, np.random.Generator], bytes]


@pytest.fixture(scope="module")
def net() -> PoseNet:
    """A small network with random weights."""
    torch.manual_seed(0)
    return create_model("mobilenetv2_035-bneck", input_size=(32, 32)).eval()


@pytest.fixture(scope="module")
def estimator(net: PoseNet) -> PoseEstimator:
    return PoseEstimator(net, device="cpu", flip=False)


def read_person() -> Image:
    image = cv2.imread(str(PERSONS))
    assert image is not None
    return image.astype(np.uint8, copy=False)


def write(path: Path, image: NDArray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def check_boxes(boxes: NDArray, width: int, height: int) -> None:
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def detect(folder: Path, out: Path) -> dict[str, NDArray]:
    """The boxes (P, 4) xyxy of each image of a folder by its name, from `posedy detect`."""
    assert main(["detect", str(folder), "--out", str(out), "--device", "cpu"]) == 0
    content = json.loads(out.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    rows: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        rows[names[annotation["image_id"]]].append([x, y, x + width, y + height])
    return {name: np.array(boxes).reshape(-1, 4) for name, boxes in rows.items()}


@pytest.mark.slow
def test_images_of_odd_sizes(estimator: PoseEstimator, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    person = read_person()
    for width, height in ODD_SIZES:
        resized = cv2.resize(person, (width, height), interpolation=cv2.INTER_AREA)
        path = write(folder / f"{width}x{height}.png", resized)
        for poses in (estimator(path), estimator(resized)):
            check_boxes(poses.boxes, width, height)
            assert np.isfinite(poses.keypoints).all()
            assert poses.keypoints.shape == (len(poses.boxes), 17, 2)
    boxes = detect(folder, tmp_path / "boxes.json")
    assert boxes.keys() == {f"{width}x{height}.png" for width, height in ODD_SIZES}
    for width, height in ODD_SIZES:
        check_boxes(boxes[f"{width}x{height}.png"], width, height)


def test_persons_in_grayscale_files_are_detected(estimator: PoseEstimator, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    gray = cv2.cvtColor(read_person(), cv2.COLOR_BGR2GRAY)
    expected = estimator(np.stack([gray] * 3, axis=-1)).boxes
    assert len(expected) > 0
    deep = gray.astype(np.uint16) * 256 + 77
    for name, image in {"gray.png": gray, "deep.png": deep, "gray.webp": gray, "gray.jpg": gray}.items():
        path = write(folder / name, image)
        tolerance = 1e-3 if name.endswith(".png") else 5  # pixels
        np.testing.assert_allclose(estimator(path).boxes, expected, atol=tolerance)
    assert all(len(boxes) >= len(expected) for boxes in detect(folder, tmp_path / "boxes.json").values())


@pytest.mark.parametrize("value", [0, 255])
def test_a_uniform_image_has_no_persons(value: int, estimator: PoseEstimator, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = write(folder / "uniform.jpg", np.full((480, 640, 3), value, np.uint8))
    assert len(estimator(path)) == 0
    check_boxes(detect(folder, tmp_path / "boxes.json")["uniform.jpg"], 640, 480)


# Runs in a separate process and prints the growth of its memory in MB. A process inherits ru_maxrss from its parent, so
# that VmHWM is read instead.
_MEMORY = """
import sys
from pathlib import Path

import torch

from posedy.cli.main import main
from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model

def peak():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

command, small, large, out = sys.argv[1:]
torch.set_num_threads(1)
estimator = PoseEstimator(create_model("mobilenetv2_035-bneck", input_size=(32, 32)).eval(), device="cpu")
run = estimator if command == "estimate" else lambda path: main(["detect", path, "--out", out, "--device", "cpu"])
run(small)
before = peak()
print("persons", run(large))
print("memory", peak() - before)
"""


@pytest.fixture(scope="module")
def large_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image file of 108 million pixels, written by another process."""
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    code = f"import cv2; assert cv2.imwrite({str(path)!r}, cv2.resize(cv2.imread({str(PERSONS)!r}), {LARGE}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc for the peak of memory")
@pytest.mark.parametrize("command", ["estimate", "detect"])
def test_memory_for_large_images_is_bounded(command: str, large_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.json"
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, command, str(PERSONS), str(large_image), str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    growth = float(done.stdout.splitlines()[-1].split()[1])
    assert np.prod(LARGE) * 3 / 2**20 < growth < MAX_MEMORY_MB
    if command == "detect":
        assert len(json.loads(out.read_text())["annotations"]) > 0


def flip_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    where = rng.integers(len(data), size=rng.integers(1, 40))
    changed[where] ^= rng.integers(1, 256, len(where)).astype(np.uint8)
    return changed.tobytes()


def flip_header_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    length = int(rng.integers(16, 700))
    return flip_bytes(data[:length], rng) + data[length:]


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def zero_range(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    end = min(start + int(rng.integers(1, len(data) // 2)), len(data))
    return data[:start] + bytes(end - start) + data[end:]


def enlarge(data: bytes, rng: np.random.Generator) -> bytes:
    """Writes a side of at least 32,767 pixels to the header of a JPEG, whose pixels may be missing."""
    start = data.index(b"\xff\xc0") + 5  # the height, then the width, in the header of the frame
    start += 2 * int(rng.integers(2))
    return data[:start] + int(rng.integers(32_767, 65_500)).to_bytes(2, "big") + data[start + 2 :]


def damaged_files(folder: Path, count: int) -> Iterator[Path]:
    """Writes small images with persons in three formats, each with one kind of damage."""
    rng = np.random.default_rng(0)
    originals = []
    for name in ("000000001000", "000000091406", "000000085772", "000000410456"):
        image = cv2.imread(str(MINI / f"{name}.jpg"))
        assert image is not None
        small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        for suffix in (".jpg", ".png", ".webp"):
            originals.append((suffix, cv2.imencode(suffix, small)[1].tobytes()))
    damages: list[Damage] = [flip_bytes, flip_header_bytes, truncate, zero_range, enlarge]
    for number in range(count):
        suffix, data = originals[number % len(originals)]
        damage = damages[number // len(originals) % len(damages)]
        if damage is enlarge and suffix != ".jpg":
            damage = flip_bytes
        path = folder / f"{number}-{damage.__name__}{suffix}"
        path.write_bytes(damage(data, rng))
        yield path


@pytest.mark.parametrize(("count", "size"), [(100, 96), pytest.param(1000, 416, marks=pytest.mark.slow)])
def test_damaged_files_have_poses_or_a_clear_error(count: int, size: int, net: PoseNet, tmp_path: Path) -> None:
    estimator = PoseEstimator(net, "cpu", PersonDetector(size, device="cpu", runtime="torch"), flip=False)
    results: Counter[str] = Counter()
    errors: dict[Path, str] = {}
    for path in damaged_files(tmp_path, count):
        try:
            poses = estimator(path)
        except (OSError, ValueError) as error:
            errors[path] = str(error)
        else:
            assert np.isfinite(poses.keypoints).all(), path
            assert np.isfinite(poses.boxes).all(), path
            results["read"] += 1
            results["persons"] += len(poses)
    assert results["read"] + len(errors) == count
    assert min(results["read"], len(errors)) > 0.2 * count
    assert [path for path, error in errors.items() if str(path) not in error or len(error) > len(str(path)) + 400] == []
    assert results["persons"] > results["read"]


def without_network() -> list[str]:
    """A command prefix that runs a program without network access; the test is skipped where there is none."""
    tool = shutil.which("unshare")
    if tool is None:
        pytest.skip("needs unshare to cut network access")
    interfaces = "import socket; print([name for _, name in socket.if_nameindex()])"
    for prefix in ([tool, "--net"], [tool, "--map-root-user", "--net"]):
        done = subprocess.run([*prefix, sys.executable, "-c", interfaces], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() in ("[]", "['lo']"):
            return prefix
    pytest.skip("unshare --net is not permitted here")


@pytest.mark.slow
def test_persons_are_found_and_drawn_offline(tmp_path: Path) -> None:
    """By the default network and detector in a home folder without caches, in the default runtime."""
    images = [MINI / "000000085772.jpg", MINI / "000000091406.jpg"]
    environment = {name: value for name, value in os.environ.items() if name not in ("POSEDY_RUNTIME", "TORCH_HOME")}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/cache")}
    (tmp_path / "home").mkdir()
    out = tmp_path / "out"
    done = subprocess.run(
        [*without_network(), sys.executable, "-m", "posedy", "predict", *map(str, images), "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((out / "keypoints.json").read_text())
    assert [Path(record["file"]) for record in records] == images
    for image, record in zip(images, records, strict=True):
        original, drawing = (cv2.imread(str(path)).astype(int) for path in (image, out / record["drawing"]))
        assert drawing.shape == original.shape
        is_drawn = np.abs(drawing - original).max(axis=2) > 100
        assert len(record["persons"]) > 0
        for person in record["persons"]:
            x1, y1, x2, y2 = (round(value) for value in person["box_xyxy"])
            assert is_drawn[y1:y2, x1:x2].any()
