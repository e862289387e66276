import copy
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

import posedy
from posedy.models.dynamic_conv import set_temperature
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint, network_record, network_state, read_checkpoint, save_weights
from posedy.models.registry import create_model
from posedy.skeleton import COCO17, Skeleton

NAME = "dy_mobilenetv2_035-bneck"
SKELETON = Skeleton(("left_a", "right_a", "b ✓"), ((0, 1),), ((0, 2), (2, 1)), (0.1, 0.1, 0.07), upper_body=(2,))
X = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def write_pt(net: PoseNet, path: Path) -> None:
    torch.save({"network": network_state(net), "epoch": 3}, path)


WRITERS = {".pt": write_pt, ".safetensors": save_weights}


@pytest.fixture(scope="module")
def net(perturb: Callable[..., PoseNet]) -> PoseNet:
    options = {"output": "softmax", "coding": "unbiased", "sigma": 1.5}
    made = create_model(NAME, 3, 2, **options, input_size=(64, 96), skeleton=SKELETON)
    perturb(made, X)
    set_temperature(made, 12.5)
    return made


@pytest.mark.parametrize("suffix", WRITERS)
def test_round_trip(net, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](net, path)
    loaded = posedy.load_checkpoint(str(path))
    assert not loaded.training
    assert (loaded.name, loaded.skeleton, loaded.input_size, loaded.options) == (
        *(NAME, SKELETON, (64, 96)),
        {"num_keypoints": 3, "num_kernels": 2, "output": "softmax", "coding": "unbiased", "sigma": 1.5},
    )
    temperatures = [value for key, value in loaded.state_dict().items() if key.endswith("temperature")]
    assert len(temperatures) == 50
    assert all(value == 12.5 for value in temperatures)
    torch.testing.assert_close(loaded(X), net(X), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mobilenetv2_035-bneck", "mobilenetv2_035-dy_bneck"])
def test_files_of_static_networks_may_record_any_number_of_kernels(name, tmp_path):
    state = network_state(create_model(name))
    state["record"]["options"]["num_kernels"] = 2
    torch.save({"network": state}, tmp_path / "old.pt")
    if "dy_" in name:
        with pytest.raises(ValueError, match="size mismatch"):
            load_checkpoint(tmp_path / "old.pt")
    else:
        assert load_checkpoint(tmp_path / "old.pt").name == name


def test_files_without_a_sigma_have_the_default(tmp_path):
    state = network_state(create_model(NAME, sigma=3))
    del state["record"]["options"]["sigma"]
    torch.save({"network": state}, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").codec.target_sigma == 2


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(("num_keypoints", "skeleton"), [(17, COCO17), (4, None)])
def test_round_trip_of_skeletons(suffix, num_keypoints, skeleton, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](create_model("mobilenetv2_035-bneck", num_keypoints), path)
    assert load_checkpoint(path).skeleton == skeleton


@pytest.mark.parametrize("suffix", WRITERS)
def test_round_trip_in_any_layout(net, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](copy.deepcopy(net).to(memory_format=torch.channels_last), path)
    torch.testing.assert_close(load_checkpoint(path)(X), net(X), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", WRITERS)
def test_half_precision_in_the_file_is_float32_in_the_network(suffix, tmp_path):
    net = create_model(NAME, 3)
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](copy.deepcopy(net).half(), path)
    expected = net.state_dict()
    for key, tensor in load_checkpoint(path).state_dict().items():
        assert tensor.dtype == expected[key].dtype
        torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=1e-6)


def test_record_is_plain_json(net):
    record = network_record(net)
    assert json.loads(json.dumps(record))["input_size"] == [64, 96]


def test_checkpoints_keep_what_else_they_hold(net, tmp_path):
    write_pt(net, tmp_path / "model.pt")
    assert read_checkpoint(tmp_path / "model.pt")["epoch"] == 3


def test_safetensors_say_what_they_hold(net, tmp_path):
    save_weights(net, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["posedy"])["name"] == NAME


def test_weights_are_written_as_safetensors_only(net, tmp_path):
    with pytest.raises(ValueError, match=r"NAME\.safetensors"):
        save_weights(net, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model"])
def test_missing_files(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / name))):
        load_checkpoint(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=name):
        load_checkpoint(tmp_path / name)
    with pytest.raises(OSError):  # noqa: PT011 - each system words it its own way
        read_checkpoint(tmp_path / name)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class MakesFolder:
    """Its pickle makes a folder when it is read as code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_not_run(tmp_path):
    (tmp_path / "evil.pt").write_bytes(saved({"network": MakesFolder(tmp_path / "made")}))
    with pytest.raises(ValueError, match=r"evil\.pt is not a checkpoint that holds tensors and plain types only"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


def test_a_pickled_network_is_refused(net, tmp_path):
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole\.pt"):
        load_checkpoint(tmp_path / "whole.pt")


SMALL = {"a": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"\x80",
        bytes(1000),
        saved(SMALL)[:200],
        saved(SMALL),
        saved([1, 2]),
        saved({"network": 3}),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".jpg", ""])
def test_other_files_are_refused_by_name(content, suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, {"posedy": "{"}, {"posedy": "[]"}, {"posedy": "null"}]
)
def test_foreign_safetensors_are_refused(metadata, tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(SMALL, path, metadata=metadata)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


def test_truncated_safetensors_are_refused(net, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(net, path)
    content = path.read_bytes()
    for length in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_checkpoint(path)


SPOILED_RECORDS: list[Any] = [
    *(None, "name", [], {}, 5),
    *({"name": "resnet50-bneck"}, {"name": None}, {"name": ["a"]}),
    *({"options": None}, {"options": {"num_kernels": 2, "surprise": 1}}, {"options": {"num_keypoints": "three"}}),
    *({"input_size": [64]}, {"input_size": [65, 96]}, {"input_size": None}, {"input_size": ["a", "b"]}),
    *({"skeleton": "coco"}, {"skeleton": {}}, {"skeleton": {"keypoints": 3}}, {"skeleton": ["a"]}),
]


@pytest.mark.parametrize("spoil", SPOILED_RECORDS, ids=repr)
@pytest.mark.parametrize("suffix", WRITERS)
def test_spoiled_records_are_refused(net, spoil, suffix, tmp_path):
    record = network_record(net) | spoil if isinstance(spoil, dict) and spoil else spoil
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save({"network": {"record": record, "tensors": SMALL}}, path)
    else:
        save_file(SMALL, path, metadata={"posedy": json.dumps(record)})
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "tensors",
    [None, 3, [torch.ones(1)], {}, SMALL, {"a": "text"}, {7: torch.ones(1)}, {None: 3}],
    ids=["None", "number", "list", "empty", "foreign", "text", "number as name", "None as name"],
)
def test_tensors_that_do_not_fit_are_refused(net, tensors, tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"network": {"record": network_record(net), "tensors": tensors}}, path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


@pytest.mark.parametrize("change", ["missing", "more", "shape", "not a tensor"])
def test_tensors_of_another_network_are_refused(net, change, tmp_path):
    state = dict(net.state_dict())
    key = "backbone.stem.0.weight"
    if change == "missing":
        del state[key]
    else:
        state |= {"more": {"more.weight": torch.ones(1)}, "shape": {key: torch.ones(1)}, "not a tensor": {key: 3}}[
            change
        ]
    path = tmp_path / "model.pt"
    torch.save({"network": {"record": network_record(net), "tensors": state}}, path)
    with pytest.raises(ValueError, match=r"(?s)model\.pt does not hold a network .*(stem|more)") as caught:
        load_checkpoint(path)
    assert "this version of posedy" in str(caught.value)


@pytest.mark.parametrize("kind", ["pt", "old pt", "safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_spoiled_byte_raises_anything_else(kind, net, tmp_path, monkeypatch):
    """Truncated and overwritten files give ValueError or OSError, whatever the readers below run into."""
    monkeypatch.setattr("posedy.models.pretrained.create_model", lambda *arguments, **options: torch.nn.Linear(1, 1))
    small = {"network": {"record": network_record(net), "tensors": SMALL}}
    buffer = io.BytesIO()
    if kind == "safetensors":
        buffer.write(save(SMALL, metadata={"posedy": json.dumps(network_record(net))}))
    else:
        torch.save(small, buffer, _use_new_zipfile_serialization=kind == "pt")
    generator = random.Random(0)
    path = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pt")
    refused = 0
    for _ in range(300):
        content = bytearray(buffer.getvalue())
        if generator.random() < 0.4:
            del content[generator.randrange(len(content)) :]
        else:
            for _ in range(generator.randint(1, 6)):
                content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            load_checkpoint(path)
        except (ValueError, OSError):
            refused += 1
    assert refused == 300  # what can still be read does not fit the network


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_options_of_the_architecture_travel(tmp_path, suffix):
    options = {"dynamic_layers": ["project"], "attention": "sigmoid", "depth": 0.5, "in_channels": 1}
    net = create_model("dy_mobilenetv2_035-bneck", 5, 2, **options)
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save({"network": network_state(net)}, path)
    else:
        save_weights(net, path)
    loaded = load_checkpoint(path)
    assert loaded.options == net.options
    x = torch.randn(2, 1, 64, 32)
    torch.testing.assert_close(loaded(x), net.eval()(x), rtol=0, atol=0)


def test_half_precision_keeps_statistics_and_temperature(tmp_path):
    net = create_model(NAME, input_size=(64, 96), temperature=29.9999)
    with torch.no_grad():
        for buffer in net.buffers():
            if buffer.is_floating_point() and buffer.ndim:
                buffer.copy_(1e6 * torch.rand(buffer.shape))
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_weights(net, whole)
    save_weights(net, half, half=True)
    assert half.stat().st_size < 0.56 * whole.stat().st_size
    with safe_open(half, framework="pt") as file:
        kinds = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - not a mapping
    parameters = dict(net.named_parameters())
    for name, kind in kinds.items():
        expected = torch.float16 if name in parameters else net.state_dict()[name].dtype
        assert kind == expected, name
    loaded = load_checkpoint(half)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, tensor in loaded.state_dict().items():
        if name in parameters:
            torch.testing.assert_close(tensor, parameters[name].detach().half().float(), rtol=0, atol=0)
        else:
            assert torch.equal(tensor, net.state_dict()[name])


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    net = create_model("mobilenetv2_035-bneck")
    with torch.no_grad():
        net.head.heatmap.bias[3] = 1e6
    path = tmp_path / "half.safetensors"
    with pytest.raises(ValueError, match=r"head\.heatmap\.bias has values that float16 does not hold"):
        save_weights(net, path, half=True)
    assert not path.exists()
