"""A backbone, a head, a codec and a detector that are registered outside of posedy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import posedy
from posedy.codecs import Outputs, create_codec
from posedy.codecs import base as codecs
from posedy.inference.detectors import base as detectors
from posedy.models import registry
from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.blocks import ConvFactory
from posedy.models.dynamic_conv import DynamicConv2d

NAME = "my_backbone-my_head"
SIZE = (64, 96)


@posedy.register_backbone("my_backbone")
class MyBackbone(posedy.Backbone):
    """Five convolutions of stride 2."""

    def __init__(self, conv: ConvFactory = posedy.static_conv, *, width: int = 8) -> None:
        super().__init__()
        self.stem = posedy.static_conv(3, width, 3, stride=2, bias=True)
        self.stages = nn.ModuleList(conv(width, width, 3, stride=2, bias=True) for _ in range(4))
        self.feature_channels = (width,) * 4

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns the maps of strides 4 to 32."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return maps


@posedy.register_head("my_head")
class MyHead(nn.Module):
    """Predicts the coordinates (N, K, 2) of keypoints from 0 to 1."""

    def __init__(self, in_channels: int, num_keypoints: int, *, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * num_keypoints))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, K, 2)."""
        return self.layers(x.mean(dim=(2, 3))).sigmoid().unflatten(1, (-1, 2))


@posedy.register_codec("my_codec")
@dataclass(frozen=True)
class MyCodec(posedy.Codec):
    """Coordinates relative to the size of the crop, without scores."""

    output_names = ("coordinates",)

    @property
    def _extent(self) -> Tensor:
        return torch.tensor([self.input_size[0] - 1.0, self.input_size[1] - 1.0])

    def encode(self, keypoints: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
        """Divides keypoints by the size of the crop."""
        return keypoints / self._extent.to(keypoints), labeled.bool().float()

    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Multiplies coordinates by the size of the crop; all scores are 1."""
        coordinates = outputs["coordinates"]
        return coordinates * self._extent.to(coordinates), torch.ones_like(coordinates[..., 0])

    def merge_flipped(self, outputs: Outputs, flipped: Outputs, flip_permutation: Sequence[int]) -> dict[str, Tensor]:
        """Averages the coordinates with the flipped ones."""
        back = flipped["coordinates"][:, list(flip_permutation)]
        back = torch.stack([1 - back[..., 0], back[..., 1]], dim=-1)
        return {"coordinates": (outputs["coordinates"] + back) / 2}

    def loss(self, outputs: Outputs, targets: Tensor, weights: Tensor) -> Tensor:
        """The sum of absolute differences of labeled keypoints."""
        return ((outputs["coordinates"] - targets).abs().sum(dim=-1) * weights).sum()


@posedy.register_detector("my_detector")
class MyDetector:
    """The left half of the image."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def detect(self, image_bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns one box with the score 0.5."""
        height, width = image_bgr.shape[:2]
        return np.array([[0, 0, width / 2, height]]), np.array([0.5])


PARTS: list[tuple[dict[str, Any], str, type]] = [
    (registry._BACKBONES, "my_backbone", MyBackbone),
    (registry._HEADS, "my_head", MyHead),
    (codecs._CODECS, "my_codec", MyCodec),
    (detectors._DETECTORS, "my_detector", MyDetector),
]
# other test modules expect the names of posedy only
for parts, name, _ in PARTS:
    del parts[name]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Registers the parts again for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        for parts, name, part in PARTS:
            patch.setitem(parts, name, part)
        yield


@pytest.fixture
def net() -> posedy.PoseNet:
    torch.manual_seed(0)
    return posedy.create_model(NAME, codec="my_codec", input_size=SIZE).eval()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def test_registered_names_are_listed() -> None:
    assert {"my_backbone", "dy_my_backbone"} <= set(posedy.list_backbones())
    assert "my_head" in posedy.list_heads()
    assert "dy_my_head" not in posedy.list_heads()
    assert "my_codec" in posedy.list_codecs()
    assert "my_detector" in posedy.list_detectors()
    models = set(posedy.list_models())
    assert {NAME, f"dy_{NAME}", "my_backbone-bneck", "mobilenetv2_050-my_head", "my_backbone-fpn"} <= models
    assert len(posedy.list_models()) == len(models)


def test_options_and_dynamic_form_of_a_registered_backbone() -> None:
    net = posedy.create_model(f"dy_{NAME}", codec="my_codec", num_kernels=2, temperature=5.0, width=12, hidden=7)
    dynamic = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert [(layer.num_kernels, float(layer.attention.temperature)) for layer in dynamic] == [(2, 5.0)] * 4
    assert {layer.out_channels for layer in dynamic} == {12}
    assert net.head.layers[0].out_features == 7
    with pytest.raises(ValueError, match=r"'widht'.*'width'"):
        posedy.create_model(NAME, codec="my_codec", widht=12)
    with pytest.raises(ValueError, match="dy_my_head"):
        posedy.create_model("my_backbone-dy_my_head")


@pytest.mark.parametrize("head", ["bneck", "fpn"])
def test_a_registered_backbone_serves_the_heads_of_posedy(head: str) -> None:
    assert posedy.create_model(f"my_backbone-{head}")(torch.zeros(2, 3, 64, 32)).shape == (2, 17, 16, 8)


@torch.no_grad()
@pytest.mark.parametrize("flip", [False, True])
def test_the_estimator_predicts_with_the_codec_and_the_detector(
    net: posedy.PoseNet, image: np.ndarray, flip: bool
) -> None:
    estimator = posedy.PoseEstimator(net, device="cpu", detector="my_detector", flip=flip)
    poses = estimator(image)
    assert poses.boxes.tolist() == [[0, 0, 80, 120]]
    assert poses.box_scores.tolist() == [0.5]
    assert poses.scores.tolist() == [[1.0] * 17]
    # the box has the aspect ratio of the crop, which is 1.25 times as large
    in_crop = (poses.keypoints[0] - np.float32([40, 60]) + 1.25 * np.float32([40, 60])) / (1.25 * np.float32([80, 120]))
    assert (in_crop > -0.02).all()
    assert (in_crop < 1.02).all()
    assert len(np.unique(poses.keypoints[0, :, 0])) == 17


def test_the_flip_test_merges_coordinates(net: posedy.PoseNet) -> None:
    permutation = posedy.COCO17.flip_permutation
    coordinates = torch.rand(2, 17, 2)
    flipped = coordinates[:, list(permutation)] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    merged = net.codec.merge_flipped({"coordinates": coordinates}, {"coordinates": flipped}, permutation)
    torch.testing.assert_close(merged["coordinates"], coordinates)


def test_targets_decode_to_their_keypoints() -> None:
    codec = create_codec("my_codec", SIZE)
    keypoints = torch.rand(2, 17, 2) * 60
    targets, weights = codec.encode(keypoints, torch.ones(2, 17))
    decoded, _ = codec.decode({"coordinates": targets})
    torch.testing.assert_close(decoded, keypoints)
    assert float(codec.loss({"coordinates": targets}, targets, weights)) == 0


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_network_of_registered_parts_is_saved_and_loaded(
    net: posedy.PoseNet, image: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"net{suffix}"
    posedy.save_checkpoint(net, path)
    loaded = posedy.load_checkpoint(path)
    assert (loaded.name, loaded.options["codec"]) == (NAME, "my_codec")
    assert loaded.codec == MyCodec(SIZE)
    x = torch.randn(2, 3, 96, 64)
    torch.testing.assert_close(loaded(x), net(x), rtol=0, atol=0)
    expected = posedy.PoseEstimator(net, device="cpu", detector="my_detector")(image)
    poses = posedy.PoseEstimator(path, device="cpu", detector="my_detector")(image)
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)


@pytest.mark.parametrize("kind", ["backbone", "head", "codec"])
def test_files_with_parts_that_are_not_registered_name_the_import(
    net: posedy.PoseNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    posedy.save_checkpoint(net, tmp_path / "net.pt")
    registries = {"backbone": registry._BACKBONES, "head": registry._HEADS, "codec": codecs._CODECS}
    monkeypatch.delitem(registries[kind], f"my_{kind}")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"net\.pt.*my_{kind}.*imports"):
        posedy.load_checkpoint(tmp_path / "net.pt")


def test_unknown_names_say_what_to_import(net: posedy.PoseNet) -> None:
    with pytest.raises(ValueError, match=r"your_backbone.*imports"):
        posedy.create_model("your_backbone-bneck")
    with pytest.raises(ValueError, match=r"your_head.*imports"):
        posedy.create_model("my_backbone-your_head")
    with pytest.raises(ValueError, match=r"your_codec.*imports"):
        posedy.create_model(NAME, codec="your_codec")
    with pytest.raises(ValueError, match=r"your_detector.*'my_detector'.*posedy\.register_detector.*--import"):
        posedy.PoseEstimator(net, detector="your_detector")
    with pytest.raises(ValueError, match=r"Full-Image.*nearest name is 'full-image'"):
        posedy.PoseEstimator(net, detector="Full-Image")


def test_networks_with_other_outputs_than_the_codec_are_rejected(image: np.ndarray) -> None:
    class TwoOutputs(posedy.PoseNet):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            y = super().forward(x)
            return y, y

    net = posedy.create_model(NAME, codec="my_codec", input_size=SIZE, model_class=TwoOutputs)
    with pytest.raises(ValueError, match=r"my_codec.*coordinates.*2"):
        posedy.PoseEstimator(net, device="cpu", detector="my_detector")(image)


def test_another_class_under_a_registered_name_is_rejected() -> None:
    class OtherCodec(MyCodec):
        pass

    registrations = [
        (posedy.register_backbone, "my_backbone", MyHead),
        (posedy.register_backbone, "resnet18", MyBackbone),
        (posedy.register_head, "my_head", MyBackbone),
        (posedy.register_codec, "my_codec", OtherCodec),
        (posedy.register_codec, "msra", MyCodec),
        (posedy.register_detector, "my_detector", MyBackbone),
        (posedy.register_detector, "full-image", MyDetector),
    ]
    for register, name, other in registrations:
        with pytest.raises(ValueError, match=name):
            register(name)(other)  # type: ignore[operator]
    assert MyCodec.name == "my_codec"


def test_another_width_under_a_registered_name_is_rejected() -> None:
    with pytest.raises(ValueError, match="'mobilenetv2_050' is already registered"):
        posedy.register_backbone("mobilenetv2_050")(partial(MobileNetV2, 0.35))
    posedy.register_backbone("mobilenetv2_050")(partial(MobileNetV2, 0.5))


@pytest.mark.usefixtures("restored_registries")
def test_options_of_parts_may_have_the_names_of_others() -> None:
    @posedy.register_head("my_dropout")
    class MyHead(nn.Sequential):
        def __init__(self, in_channels: int, num_keypoints: int, *, dropout: float = 0.0, padding: int = 0) -> None:
            conv = nn.Conv2d(in_channels, num_keypoints, 1, padding=padding)
            super().__init__(nn.Dropout(dropout), conv, nn.Upsample(scale_factor=8))

    net = posedy.create_model("resnet10-my_dropout", dropout=0.3, padding=1)
    assert net.head[0].p == 0.3
    assert net.head[1].padding == (1, 1)
    assert "dropout" not in posedy.models.registry.list_options("resnet10-bneck")

    @posedy.register_backbone("my_mobilenet")
    class MyMobileNet(MobileNetV2):
        pass

    with pytest.raises(ValueError, match="padding must be one of"):
        posedy.create_model("my_mobilenet-bneck", padding="tensorflo")


def test_the_same_class_may_be_registered_again() -> None:
    assert posedy.register_backbone("my_backbone")(MyBackbone) is MyBackbone
    assert posedy.register_head("my_head")(MyHead) is MyHead
    assert posedy.register_codec("my_codec")(MyCodec) is MyCodec
    assert posedy.register_detector("my_detector")(MyDetector) is MyDetector


@pytest.mark.parametrize("name", ["dy_net", "my-net", "my/net", "", "my net"])
def test_invalid_names_of_parts_are_rejected(name: str) -> None:
    for register in (posedy.register_backbone, posedy.register_head):
        with pytest.raises(ValueError, match=repr(name)):
            register(name)


@pytest.mark.parametrize(
    "decoded",
    [
        None,
        torch.zeros(1, 17, 2),
        (torch.zeros(1, 1, 2), torch.zeros(1, 1)),
        (torch.zeros(1, 17, 3), torch.zeros(1, 17)),
        (torch.zeros(1, 17, 2), torch.zeros(1, 17, 1)),
        (torch.full((1, 17, 2), float("nan")), torch.zeros(1, 17)),
    ],
)
def test_codecs_that_decode_to_something_else_are_rejected(
    net: posedy.PoseNet, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, decoded: Any
) -> None:
    monkeypatch.setattr(MyCodec, "decode", lambda codec, outputs: decoded)
    estimator = posedy.PoseEstimator(net, device="cpu", detector="my_detector")
    with pytest.raises((TypeError, ValueError), match=r"my_codec|NaN"):
        estimator(image)


@pytest.mark.parametrize("merged", [None, {}, torch.zeros(1, 17, 2)])
def test_codecs_that_merge_to_something_else_are_rejected(
    net: posedy.PoseNet, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, merged: Any
) -> None:
    monkeypatch.setattr(MyCodec, "merge_flipped", lambda *arguments: merged)
    with pytest.raises(TypeError, match=r"merge_flipped.*my_codec"):
        posedy.PoseEstimator(net, device="cpu", detector="my_detector")(image)


@pytest.mark.parametrize("output", [None, 3, {"coordinates": 1}, ("a",)])
def test_networks_without_tensors_are_rejected(image: np.ndarray, output: Any) -> None:
    class Odd(posedy.PoseNet):
        def forward(self, x: Tensor) -> Any:
            return output

    net = posedy.create_model(NAME, codec="my_codec", input_size=SIZE, model_class=Odd)
    with pytest.raises(TypeError, match="my_codec"):
        posedy.PoseEstimator(net, device="cpu", detector="my_detector")(image)


def test_incomplete_codecs_are_rejected() -> None:
    incomplete = type("Incomplete", (posedy.Codec,), {})
    with pytest.raises(TypeError, match=r"decode.*Incomplete"):
        posedy.register_codec("incomplete")(incomplete)
    for names in ("coordinates", (), None):
        with pytest.raises(TypeError, match="output_names"):
            posedy.register_codec("odd")(type("Odd", (MyCodec,), {"output_names": names}))
    assert "odd" not in posedy.list_codecs()
    for register in (posedy.register_codec, posedy.register_detector, posedy.register_head, posedy.register_backbone):
        with pytest.raises(ValueError, match="write @posedy"):
            register(MyCodec)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"model_class": nn.Module}, TypeError),
        ({"model_class": None}, TypeError),
        ({"temperature": 0}, ValueError),
        ({"temperature": "a"}, ValueError),
        ({"sigma": "a"}, ValueError),
        ({"sigma": float("inf")}, ValueError),
        ({"input_size": ("a", "b")}, ValueError),
        ({"input_size": (64.0, 96.0)}, ValueError),
    ],
)
def test_invalid_arguments_of_networks_are_named(arguments: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(arguments))):
        posedy.create_model(NAME, codec="my_codec", **arguments)


def test_names_of_timm_need_a_head() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="head"):
        posedy.create_model("timm/resnet18")


def test_the_input_size_is_a_tuple() -> None:
    assert posedy.create_model(NAME, codec="my_codec", input_size=list(SIZE)).input_size == SIZE  # type: ignore[arg-type]


@pytest.mark.parametrize("results", [{}, None, 3, [1], [[{}]]])
def test_results_of_another_type_are_rejected(results: Any) -> None:
    empty: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "a", "keypoints": ["b"]}],
    }
    with pytest.raises(TypeError, match="results"):
        posedy.evaluate(results, empty)
    with pytest.raises(TypeError, match="annotations"):
        posedy.evaluate([], results if isinstance(results, list) else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("ci", ["no", 0, None])
def test_ci_must_be_a_boolean(ci: Any) -> None:
    with pytest.raises(TypeError, match=f"ci.*{ci!r}"):
        posedy.evaluate([], {}, ci=ci)


def test_configurations_of_another_type_are_rejected(tmp_path: Path) -> None:
    for config in (None, {}, 3):
        with pytest.raises(TypeError, match="Config"):
            posedy.train(config, out=tmp_path / "run")  # type: ignore[arg-type]
    path = tmp_path / "my.yaml"
    path.touch()
    for overrides in ("train.epochs=2", [3]):
        with pytest.raises(ValueError, match=r"section\.key=value"):
            posedy.train(path, overrides, out=tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"my\.yaml"):
        posedy.train(path, out=path)
