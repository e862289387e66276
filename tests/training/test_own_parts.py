"""Backbones, heads, codecs and network classes of a user: trained, saved, loaded, exported, used for prediction."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import posedy
from posedy.config import Config, ConfigError
from posedy.files import read_csv

MODULE = "toy_parts"
SETTINGS = (
    *(f"imports=[{MODULE}]", "model.name=dy_toy-toy_regression", "model.codec=toy_regression", "model.options={}"),
    *("train.lr=0.01", "eval.flip=true", "train.epochs=4"),
)
STILL = ("augment={flip_probability: 0, scale_std: 0, rotation_probability: 0, half_body_probability: 0}",)
BOXES = np.array([[10, 5, 60, 90], [40, 20, 99, 99]], dtype=np.float32)


@pytest.fixture(autouse=True)
def toy_module(monkeypatch: pytest.MonkeyPatch, restored_registries: None) -> Iterator[None]:
    """The module can be imported, and is imported again by each test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    sys.modules.pop(MODULE, None)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)


def test_a_codec_of_regression_trains_saves_loads_and_predicts(
    experiment: Callable[..., Config], tmp_path: Path, image: np.ndarray
) -> None:
    metrics = posedy.train(experiment(*SETTINGS, *STILL, "train.epochs=10"), out=tmp_path)
    assert "AP" in metrics
    losses = [float(row["loss"]) for row in read_csv(tmp_path / "metrics.csv")]
    assert losses[-1] < losses[0]
    assert not (tmp_path / "pictures").exists()
    net = posedy.load_checkpoint(tmp_path / "last.pt")
    assert (net.name, net.codec.name) == ("dy_toy-toy_regression", "toy_regression")
    poses = posedy.PoseEstimator(tmp_path / "last.pt", device="cpu")(image, BOXES)
    assert poses.keypoints.shape == (2, 17, 2)
    assert np.isfinite(poses.keypoints).all()
    # the keypoints of a crop lie inside it
    assert (poses.keypoints.min(axis=1) > BOXES[:, :2] - 60).all()


@pytest.mark.slow
@pytest.mark.parametrize("with_decoding", [False, True])
def test_a_codec_of_regression_is_exported(
    experiment: Callable[..., Config], tmp_path: Path, image: np.ndarray, with_decoding: bool
) -> None:
    experiment(*SETTINGS)  # imports the module
    torch.manual_seed(0)
    net = posedy.create_model("dy_toy-toy_regression", codec="toy_regression", input_size=(32, 64), width=6).eval()
    path = tmp_path / "toy.onnx"
    posedy.export_onnx(net, path, with_decoding=with_decoding)
    expected = posedy.PoseEstimator(net, device="cpu")(image, BOXES)
    poses = posedy.PoseEstimator(path)(image, BOXES)
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-2)
    np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-4)


def test_a_network_class_of_a_user_is_trained_and_loaded_again(
    experiment: Callable[..., Config], tmp_path: Path, image: np.ndarray
) -> None:
    config = experiment(*SETTINGS)
    own = sys.modules[MODULE].ToyNet
    own.calls = 0
    posedy.train(config, out=tmp_path, model_class=own)
    assert own.calls > 4
    net = posedy.load_checkpoint(tmp_path / "last.pt", model_class=own)
    assert type(net) is own
    x = torch.randn(1, 3, 64, 32)
    plain = posedy.load_checkpoint(tmp_path / "last.pt")
    torch.testing.assert_close(net(x)[0], plain(0.5 * x)[0])
    assert posedy.PoseEstimator(net, device="cpu")(image, BOXES).keypoints.shape == (2, 17, 2)


def test_a_name_without_its_import_says_how_to_import_it(experiment: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="imports"):
        experiment("model.name=unheard_of-bneck")
    with pytest.raises(ConfigError, match="imports"):
        experiment("model.codec=unheard_of")
    with pytest.raises(ConfigError, match="no_such_module"):
        experiment("imports=[no_such_module]")
