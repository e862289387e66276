"""The programs of the page on deployment decode heatmaps as the unbiased codec does."""

import ast
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posedy.codecs import UnbiasedCodec
from posedy.models.pose_net import predict_outputs
from posedy.models.pretrained import load_checkpoint
from tools.lab.runtime_parity.__main__ import person_crops

from ..test_readme import REPOSITORY, blocks_of

PAGE = REPOSITORY / "docs/how_to/deployment.md"
CODEC = UnbiasedCodec((192, 256))
Heatmaps = NDArray[np.float32]
HAS_OPENCV = (
    shutil.which("g++") is not None
    and shutil.which("pkg-config") is not None
    and subprocess.run(["pkg-config", "--exists", "opencv4"], check=False).returncode == 0
)

MAIN = """
int main() {
    cv::Mat heatmap(64, 48, CV_32F);
    while (std::cin.read(heatmap.ptr<char>(), heatmap.total() * 4)) {
        cv::Vec2d keypoint = decode(heatmap);
        std::cout << keypoint[0] << " " << keypoint[1] << "\\n";
    }
}
"""


def program(language: str) -> str:
    """Returns the program of the page with the function `decode`."""
    [block] = [block for block in blocks_of(PAGE, language) if " decode(" in block]
    return block


def expected_keypoints(heatmaps: Heatmaps) -> NDArray[np.float32]:
    return CODEC.decode({"heatmaps": torch.from_numpy(heatmaps)[None]})[0][0].numpy()


def decode_in_python(heatmaps: Heatmaps) -> NDArray[np.float64]:
    """Decodes heatmaps (N, 64, 48) with the functions of the Python program."""
    functions = [node for node in ast.parse(program("python")).body if isinstance(node, ast.FunctionDef)]
    names: dict[str, Any] = {"cv2": cv2, "np": np}
    exec(compile(ast.Module(functions, []), PAGE.name, "exec"), names)
    return np.stack([names["decode"](heatmap) for heatmap in heatmaps])


def decode_in_cpp(heatmaps: Heatmaps, folder: Path) -> NDArray[np.float64]:
    """Decodes heatmaps (N, 64, 48) with the function of the C++ program, which is compiled as a whole."""
    source, binary = folder / "pose.cpp", folder / "pose"
    source.write_text(program("cpp").replace("int main(", "int run(") + MAIN)
    shown = subprocess.run(["pkg-config", "--cflags", "--libs", "opencv4"], check=True, capture_output=True, text=True)
    subprocess.run(["g++", "-std=c++17", source, "-o", binary, *shown.stdout.split()], check=True)
    done = subprocess.run([binary], input=heatmaps.tobytes(), check=True, capture_output=True)
    return np.array(done.stdout.split(), float).reshape(-1, 2)


@pytest.fixture(scope="module")
def difficult() -> Heatmaps:
    """Targets inside, at the border and cut off by it; two peaks close to each other; noise; ridges of any angle.

    On ridges Newton's step is longer than a pixel, or the logarithm is not concave.
    """
    rng = np.random.default_rng(0)
    centers = np.concatenate([rng.uniform(-8, (200, 264), (60, 2)), [[0, 0], [191, 255], [0, 130], [-7, 40], [3, 258]]])
    targets = CODEC.encode(torch.from_numpy(centers)[None], torch.ones(1, len(centers)))[0][0].numpy()
    targets = targets[targets.any(axis=(1, 2))]
    shifted = np.stack([np.roll(target, rng.integers(-5, 6, 2), axis=(0, 1)) for target in targets])
    noise = rng.random((60, 64, 48), np.float32)
    angles = rng.uniform(0, np.pi, (60, 1, 1))
    x, y = np.arange(48) - rng.uniform(10, 38, (60, 1, 1)), np.arange(64)[:, None] - rng.uniform(10, 54, (60, 1, 1))
    across, along = x * np.cos(angles) + y * np.sin(angles), y * np.cos(angles) - x * np.sin(angles)
    ridges = np.exp(-(across**2) / 2 - along**2 / 3000)
    ridges[30:] = (np.abs(across[30:]) < 5) + 0.2 * noise[30:]
    parts = [targets, targets + 0.98 * shifted, 0.01 * noise, noise, -noise, ridges, np.zeros((1, 64, 48))]
    return np.concatenate(parts).astype(np.float32)


def assert_close(decoded: NDArray[np.float64], heatmaps: Heatmaps) -> None:
    """Rounding counts most on ridges, where the determinant of the Hessian is close to 0."""
    np.testing.assert_allclose(decoded, expected_keypoints(heatmaps), rtol=0, atol=0.1)


def test_python_decodes_difficult_heatmaps(difficult: Heatmaps) -> None:
    assert_close(decode_in_python(difficult), difficult)


@pytest.mark.skipif(not HAS_OPENCV, reason="needs g++, pkg-config and OpenCV's headers")
def test_cpp_decodes_difficult_heatmaps(difficult: Heatmaps, tmp_path: Path) -> None:
    assert_close(decode_in_cpp(difficult, tmp_path), difficult)


@pytest.mark.slow
def test_python_decodes_heatmaps_of_persons() -> None:
    net = load_checkpoint("balanced")
    assert net.codec == CODEC
    with torch.inference_mode():
        outputs = predict_outputs(net, torch.from_numpy(person_crops(64, net.input_size)), net.codec)
    heatmaps = outputs["heatmaps"].flatten(0, 1).numpy()
    assert_close(decode_in_python(heatmaps), heatmaps)
