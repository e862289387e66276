"""PoseEstimator gives with an exported file what it gives with the network."""

from pathlib import Path

import numpy as np
import pytest

from posedy.cli.main import main
from posedy.inference.estimator import PoseEstimator
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import save_weights

BOXES = np.array([[20, 10, 90, 140], [60.5, 5, 190, 120], [-30, -20, 60, 80]], dtype=np.float32)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", [None, "onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["free", pytest.param("decoding", marks=pytest.mark.slow)])
def test_same_poses(
    net: PoseNet, photo: np.ndarray, kind: str, runtime: str | None, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    expected = PoseEstimator(net, device="cpu")(photo, BOXES)
    poses = PoseEstimator(path, runtime=runtime)(photo, BOXES)
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4 * np.abs(expected.scores).max())
    assert (np.abs(poses.keypoints - expected.keypoints).max(axis=-1) < 1e-2).mean() > 0.95
    assert poses.skeleton == expected.skeleton
    assert len(PoseEstimator(path, runtime=runtime)(photo, [])) == 0


@pytest.mark.slow
def test_mirroring_is_outside_a_graph_of_heatmaps_and_inside_one_that_decodes(
    net: PoseNet, photo: np.ndarray, free: Path, decoding: Path
) -> None:
    expected = PoseEstimator(net, device="cpu", flip=False)(photo, BOXES)
    poses = PoseEstimator(str(free), flip=False)(photo, BOXES)
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=1e-4 * np.abs(expected.scores).max())
    with pytest.raises(ValueError, match="flip=True"):
        PoseEstimator(decoding, flip=False)


def test_runtimes_are_for_onnx_files(net: PoseNet) -> None:
    with pytest.raises(ValueError, match=r"\.onnx"):
        PoseEstimator(net, runtime="onnxruntime")


@pytest.mark.slow
def test_export_and_demo(net: PoseNet, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, graph = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    save_weights(net, weights)
    assert main(["export", str(weights), "--out", str(graph), "--batch", "1", "--runtime", "openvino"]) == 0
    printed = capsys.readouterr().out
    assert "images (1, 3, 64, 64) float32 -> heatmaps (1, 17, 16, 16)" in printed
    assert "largest difference from PyTorch" in printed
    photo = next((drawn / "val2017").glob("*.jpg"))
    assert main(["demo", str(photo), "--checkpoint", str(graph), "--whole", "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.pth"], "NAME.onnx for other runtimes or NAME.safetensors"),
        (["--out", "x.safetensors", "--decode"], "--decode is for ONNX files"),
        (["--out", "x.safetensors", "--batch", "1"], "--batch is for ONNX files"),
        (["--out", "x.onnx", "--no-flip"], "--no-flip belongs to --decode"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "absent.pt", *arguments]) == 1
    assert words in capsys.readouterr().err
