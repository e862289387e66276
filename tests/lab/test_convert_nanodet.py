"""The conversion of NanoDet-g's graph model."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from posedy.models.nanodet import NanoDet, load_nanodet
from tools.lab.convert_nanodet import load_graph, select_class, write_person_weights


@pytest.fixture(scope="module")
def net() -> NanoDet:
    """A network of 80 classes with random float16 weights."""
    torch.manual_seed(0)
    net = NanoDet(80).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(parameter.half())
    return net


def write_graph(net: NanoDet, folder: Path) -> Path:
    """Writes a graph model with the nodes that the conversion reads."""
    nodes, weights, data = [], [], b""
    for index, conv in enumerate(module for module in net.modules() if isinstance(module, nn.Conv2d)):
        suffix = f"_{index}" if index else ""
        kernel, bias = conv.weight.permute(2, 3, 1, 0).contiguous(), conv.bias
        for name, tensor in ((f"kernel{suffix}", kernel), (f"bias{suffix}", bias)):
            quantization = {"dtype": "float16"}
            weights.append(
                {"name": name, "shape": list(tensor.shape), "dtype": "float32", "quantization": quantization}
            )
            data += tensor.half().numpy().tobytes()
        convolution = f"PartitionedCall/convolution{suffix}"
        nodes.append({"name": convolution, "op": "Conv2D", "input": ["x", f"kernel{suffix}"]})
        nodes.append({"name": f"Add{suffix}", "op": "Add", "input": [convolution, f"bias{suffix}"]})
    (folder / "nanodet.bin").write_bytes(data)
    manifest = [{"paths": ["nanodet.bin"], "weights": weights}]
    path = folder / "nanodet.json"
    path.write_text(json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest}))
    return path


def test_graphs_are_loaded(net: NanoDet, tmp_path: Path) -> None:
    loaded = load_graph(write_graph(net, tmp_path)).state_dict()
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_the_person_network_has_the_outputs_of_the_first_class(net: NanoDet, tmp_path: Path) -> None:
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected_logits, expected_bins = net(images)
    path = tmp_path / "weights/person.safetensors"
    write_person_weights(select_class(net), path)
    logits, bins = load_nanodet(path)(images)
    torch.testing.assert_close(logits, expected_logits[..., :1])
    torch.testing.assert_close(bins, expected_bins)


def test_weights_that_float16_rounds_are_rejected(net: NanoDet, tmp_path: Path) -> None:
    person = select_class(net)
    person.neck.laterals[1].bias.data[3] = 1 + 2**-14
    with pytest.raises(ValueError, match=r"neck\.laterals\.1\.bias"):
        write_person_weights(person, tmp_path / "person.safetensors")


def test_other_graphs_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"modelTopology": {"node": []}, "weightsManifest": []}))
    with pytest.raises(ValueError, match=r"other\.json"):
        load_graph(path)
