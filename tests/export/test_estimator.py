"""PoseEstimator with an exported file equals PoseEstimator with the network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posedy.cli.main import main
from posedy.inference.estimator import PoseEstimator
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet

BOXES = np.array([[20, 10, 90, 140], [60.5, 5, 190, 120], [-30, -20, 60, 80]], dtype=np.float32)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", ["auto", "onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["free", pytest.param("decoding", marks=pytest.mark.slow)])
def test_poses_equal_the_network(
    net: PoseNet, image: np.ndarray, kind: str, runtime: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    expected = PoseEstimator(net, device="cpu")(image, BOXES)
    poses = PoseEstimator(path, runtime=runtime)(image, BOXES)
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4 * np.abs(expected.scores).max())
    assert (np.abs(poses.keypoints - expected.keypoints).max(axis=-1) < 1e-2).mean() > 0.95
    assert poses.skeleton == expected.skeleton
    assert len(PoseEstimator(path, runtime=runtime)(image, [])) == 0


@pytest.mark.slow
def test_flip_can_be_disabled_for_heatmap_graphs_only(
    net: PoseNet, image: np.ndarray, free: Path, decoding: Path
) -> None:
    expected = PoseEstimator(net, device="cpu", flip=False)(image, BOXES)
    poses = PoseEstimator(str(free), flip=False)(image, BOXES)
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4 * np.abs(expected.scores).max())
    with pytest.raises(ValueError, match="flip=True"):
        PoseEstimator(decoding, flip=False)


def test_runtime_needs_an_onnx_file(net: PoseNet) -> None:
    with pytest.raises(ValueError, match=r"\.onnx"):
        PoseEstimator(net, runtime="onnxruntime")


@pytest.mark.slow
def test_export_and_demo(
    create_net: Callable[..., PoseNet], synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, graph = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    save_weights(create_net(), weights)
    assert main(["export", str(weights), "--out", str(graph), "--batch", "1", "--runtime", "openvino"]) == 0
    printed = capsys.readouterr().out
    assert "images (1, 3, 64, 64) float32 -> heatmaps (1, 17, 16, 16)" in printed
    assert "largest difference from PyTorch" in printed
    image = next((synthetic / "val2017").glob("*.jpg"))
    assert main(["demo", str(image), "--checkpoint", str(graph), "--full-image", "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.pth"], "NAME.onnx for other runtimes or NAME.safetensors"),
        (["--out", "x.safetensors", "--decode"], "--decode is for ONNX files"),
        (["--out", "x.safetensors", "--batch", "1"], "--batch is for ONNX files"),
        (["--out", "x.onnx", "--no-flip"], "--no-flip needs --decode"),
    ],
)
def test_invalid_options_are_rejected(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "absent.pt", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
