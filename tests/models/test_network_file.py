import copy
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

import posedy
from posedy.models.dynamic_conv import set_temperature
from posedy.models.factory import create_model
from posedy.models.network_file import network_record, network_state, read_checkpoint, recorded_options, save_weights
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint, save_checkpoint
from posedy.skeleton import COCO17, Skeleton

NAME = "dy_mobilenetv2_035-fpn"
SHALLOW = {"depth": 0.34}  # 7 blocks instead of 17
SKELETON = Skeleton(("left_a", "right_a", "b ✓"), ((0, 1),), ((0, 2), (2, 1)), (0.1, 0.1, 0.07), upper_body=(2,))
X = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def write_pt(net: PoseNet, path: Path) -> None:
    torch.save({"network": network_state(net), "epoch": 3}, path)


WRITERS = {".pt": write_pt, ".safetensors": save_weights}


@pytest.fixture(scope="module")
def net(perturb: Callable[..., PoseNet]) -> PoseNet:
    options = {"output": "softmax", "codec": "unbiased", "sigma": 1.5, **SHALLOW}
    network = create_model(NAME, num_keypoints=3, num_kernels=2, **options, input_size=(64, 96), skeleton=SKELETON)
    perturb(network, X)
    set_temperature(network, 12.5)
    return network


@pytest.mark.parametrize("suffix", WRITERS)
def test_numbers_of_numpy_and_sets_are_recorded_as_plain_types(suffix, tmp_path):
    pairs = np.array([[0, 1]])
    skeleton = Skeleton(("left_a", "right_a"), pairs, (), tuple(np.full(2, 0.05, np.float32)))
    options = {"sigma": np.float64(1.5), "dynamic_layers": {"expand"}, **SHALLOW}
    net = create_model("dy_mobilenetv2_035-bneck", num_keypoints=2, skeleton=skeleton, **options)
    WRITERS[suffix](net, tmp_path / f"model{suffix}")
    loaded = load_checkpoint(tmp_path / f"model{suffix}")
    assert loaded.skeleton == Skeleton(("left_a", "right_a"), ((0, 1),), (), (float(np.float32(0.05)),) * 2)
    assert loaded.options["sigma"] == 1.5
    assert loaded.options["dynamic_layers"] == ["expand"]


def test_options_of_other_types_are_not_written(tmp_path):
    net = create_model("mobilenetv2_035-fpn", **SHALLOW)
    net.options["activation"] = torch.nn.ReLU
    with pytest.raises(TypeError, match=r"expected options .* got <class 'torch\.nn"):
        save_checkpoint(net, tmp_path / "net.pt")
    assert not (tmp_path / "net.pt").exists()


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_saved_network_is_loaded_with_its_record(net, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](net, path)
    loaded = posedy.load_checkpoint(str(path))
    assert not loaded.training
    assert (loaded.name, loaded.skeleton, loaded.input_size, loaded.options) == (
        *(NAME, SKELETON, (64, 96)),
        {"num_keypoints": 3, "num_kernels": 2, "output": "softmax", "codec": "unbiased", "sigma": 1.5, **SHALLOW},
    )
    temperatures = [value for key, value in loaded.state_dict().items() if key.endswith("temperature")]
    assert len(temperatures) == 7 * 3 - 1  # the first block has no expansion
    assert all(value == 12.5 for value in temperatures)
    torch.testing.assert_close(loaded(X), net(X), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", WRITERS)
def test_save_checkpoint_writes_by_suffix(net, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    posedy.save_checkpoint(net, str(path))
    torch.testing.assert_close(load_checkpoint(path)(X), net(X), rtol=0, atol=0)


def test_save_checkpoint_rejects_other_suffixes(net, tmp_path):
    with pytest.raises(ValueError, match=r"model\.onnx"):
        save_checkpoint(net, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mobilenetv2_035-fpn", "mobilenetv2_035-dy_fpn"])
def test_num_kernels_in_files_of_static_networks_is_ignored(name, tmp_path):
    state = network_state(create_model(name, **SHALLOW))
    state["record"]["options"]["num_kernels"] = 2
    torch.save({"network": state}, tmp_path / "old.pt")
    if "dy_" in name:
        with pytest.raises(ValueError, match="size mismatch"):
            load_checkpoint(tmp_path / "old.pt")
    else:
        assert load_checkpoint(tmp_path / "old.pt").name == name


def test_files_without_a_sigma_have_the_default(tmp_path):
    state = network_state(create_model(NAME, sigma=3, **SHALLOW))
    del state["record"]["options"]["sigma"]
    torch.save({"network": state}, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").codec.target_sigma == 2


@pytest.mark.parametrize(("coding", "codec"), [("paper", "msra"), ("unbiased", "unbiased")])
def test_earlier_names_of_codecs_are_converted(coding, codec, tmp_path):
    state = network_state(create_model(NAME, **SHALLOW))
    options = state["record"]["options"]
    del options["codec"]
    options["coding"] = coding
    assert recorded_options(state["record"])["codec"] == codec
    assert options["coding"] == coding
    torch.save({"network": state}, tmp_path / "old.pt")
    loaded = load_checkpoint(tmp_path / "old.pt")
    assert loaded.codec.name == loaded.options["codec"] == codec
    assert "coding" not in loaded.options


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(("num_keypoints", "skeleton"), [(17, COCO17), (4, None)])
def test_skeletons_are_saved_and_loaded(suffix, num_keypoints, skeleton, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](create_model("mobilenetv2_035-fpn", num_keypoints=num_keypoints), path)
    assert load_checkpoint(path).skeleton == skeleton


@pytest.mark.parametrize("suffix", WRITERS)
def test_networks_in_channels_last_are_saved_and_loaded(net, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](copy.deepcopy(net).to(memory_format=torch.channels_last), path)
    torch.testing.assert_close(load_checkpoint(path)(X), net(X), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", WRITERS)
def test_half_precision_files_are_loaded_as_float32(suffix, tmp_path):
    net = create_model(NAME, num_keypoints=3, **SHALLOW)
    path = tmp_path / f"model{suffix}"
    WRITERS[suffix](copy.deepcopy(net).half(), path)
    expected = net.state_dict()
    for key, tensor in load_checkpoint(path).state_dict().items():
        assert tensor.dtype == expected[key].dtype
        torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=1e-6)


def test_the_record_is_json(net):
    record = network_record(net)
    assert json.loads(json.dumps(record))["input_size"] == [64, 96]


def test_other_entries_of_a_checkpoint_are_read(net, tmp_path):
    write_pt(net, tmp_path / "model.pt")
    assert read_checkpoint(tmp_path / "model.pt")["epoch"] == 3


def test_safetensors_metadata_name_the_network(net, tmp_path):
    save_weights(net, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["posedy"])["name"] == NAME


def test_save_weights_rejects_other_suffixes(net, tmp_path):
    with pytest.raises(ValueError, match=r"NAME\.safetensors"):
        save_weights(net, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model"])
def test_missing_files_and_folders_raise_oserror(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / name))):
        load_checkpoint(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=name):
        load_checkpoint(tmp_path / name)
    with pytest.raises(OSError):  # noqa: PT011 - the message depends on the system
        read_checkpoint(tmp_path / name)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class FolderCreator:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_not_run(tmp_path):
    (tmp_path / "evil.pt").write_bytes(saved({"network": FolderCreator(tmp_path / "created")}))
    with pytest.raises(ValueError, match=r"evil\.pt.*plain types"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "created").exists()


def test_a_pickled_network_is_rejected(net, tmp_path):
    torch.save(net, tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match=r"pickled\.pt"):
        load_checkpoint(tmp_path / "pickled.pt")


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
def test_other_files_are_rejected_by_name(content, suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, {"posedy": "{"}, {"posedy": "[]"}, {"posedy": "null"}]
)
def test_safetensors_without_a_valid_record_are_rejected(metadata, tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(SMALL, path, metadata=metadata)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


def test_truncated_safetensors_are_rejected(net, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(net, path)
    content = path.read_bytes()
    for length in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_checkpoint(path)


INVALID_CHANGES: list[Any] = [
    *(None, "name", [], {}, 5),
    *({"name": "resnet50-bneck"}, {"name": None}, {"name": ["a"]}),
    *({"options": None}, {"options": {"num_kernels": 2, "unknown": 1}}, {"options": {"num_keypoints": "three"}}),
    *({"input_size": [64]}, {"input_size": [65, 96]}, {"input_size": None}, {"input_size": ["a", "b"]}),
    *({"skeleton": "coco"}, {"skeleton": {}}, {"skeleton": {"keypoints": 3}}, {"skeleton": ["a"]}),
]


@pytest.mark.parametrize("change", INVALID_CHANGES, ids=repr)
@pytest.mark.parametrize("suffix", WRITERS)
def test_invalid_records_are_rejected(net, change, suffix, tmp_path):
    record = network_record(net) | change if isinstance(change, dict) and change else change
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
def test_tensors_that_do_not_fit_are_rejected(net, tensors, tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"network": {"record": network_record(net), "tensors": tensors}}, path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_checkpoint(path)


@pytest.mark.parametrize("change", ["missing", "more", "shape", "not a tensor"])
def test_tensors_of_another_network_are_rejected_by_name(net, change, tmp_path):
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
    with pytest.raises(ValueError, match=r"(?s)model\.pt.*(stem|more)"):
        load_checkpoint(path)


@pytest.mark.parametrize("kind", ["pt", pytest.param("old pt", marks=pytest.mark.slow), "safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_named(kind, net, tmp_path, monkeypatch):
    """Truncated and overwritten files raise a ValueError or an OSError with their path."""
    monkeypatch.setattr("posedy.models.pretrained.create_model", lambda *arguments, **options: torch.nn.Linear(1, 1))
    small = {"network": {"record": network_record(net), "tensors": SMALL}}
    buffer = io.BytesIO()
    if kind == "safetensors":
        buffer.write(save(SMALL, metadata={"posedy": json.dumps(network_record(net))}))
    else:
        torch.save(small, buffer, _use_new_zipfile_serialization=kind == "pt")
    rng = random.Random(0)
    path = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pt")
    for _ in range(300):
        content = bytearray(buffer.getvalue())
        if rng.random() < 0.4:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.randint(1, 6)):
                content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        with pytest.raises((ValueError, OSError), match=re.escape(str(path))):  # what can be read does not fit
            load_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_options_of_the_architecture_are_saved_and_loaded(tmp_path, suffix):
    options = {"dynamic_layers": ["project"], "attention": "sigmoid", "depth": 0.5, "in_channels": 1}
    net = create_model(NAME, num_keypoints=5, num_kernels=2, **options)
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save({"network": network_state(net)}, path)
    else:
        save_weights(net, path)
    loaded = load_checkpoint(path)
    assert loaded.options == net.options
    x = torch.randn(2, 1, 64, 32)
    torch.testing.assert_close(loaded(x), net.eval()(x), rtol=0, atol=0)


def test_half_precision_is_for_parameters_only(tmp_path):
    net = create_model(NAME, input_size=(64, 96), temperature=29.9999, **SHALLOW)
    with torch.no_grad():
        for buffer in net.buffers():
            if buffer.is_floating_point() and buffer.ndim:
                buffer.copy_(1e6 * torch.rand(buffer.shape))
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_weights(net, full)
    save_weights(net, half, half=True)
    assert half.stat().st_size < 0.56 * full.stat().st_size
    with safe_open(half, framework="pt") as file:
        dtypes = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - not a mapping
    parameters, state = dict(net.named_parameters()), net.state_dict()
    for name, dtype in dtypes.items():
        expected = torch.float16 if name in parameters else state[name].dtype
        assert dtype == expected, name
    loaded = load_checkpoint(half)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, tensor in loaded.state_dict().items():
        if name in parameters:
            torch.testing.assert_close(tensor, parameters[name].detach().half().float(), rtol=0, atol=0)
        else:
            assert torch.equal(tensor, state[name])


def test_parameters_outside_the_range_of_float16_are_rejected(tmp_path):
    net = create_model("mobilenetv2_035-fpn")
    with torch.no_grad():
        net.head.heatmap.bias[3] = 1e6
    path = tmp_path / "half.safetensors"
    with pytest.raises(ValueError, match=r"head\.heatmap\.bias.*float16"):
        save_weights(net, path, half=True)
    assert not path.exists()


def test_exported_files_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"graph")
    with pytest.raises(ValueError, match=r"x\.onnx is an exported file: expected the checkpoint"):
        load_checkpoint(tmp_path / "x.onnx")
