"""`posedy models`: list the networks with their size and cost."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_command, add_import, add_json, write_json

_IMAGENET_CLASSES = 1000


def register_parser(commands: Any) -> None:
    """Adds the command `posedy models` to the parser of all commands."""
    parser = add_command(
        commands,
        "models",
        "list the networks with their size and cost",
        "posedy models --input-size 192 256\nposedy models runs/x/best.pt dy_mobilenetv2_050 balanced",
    )
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="count these instead of listing all: files, architectures, presets, or backbones, which get a classifier "
        "of 1000 classes",
    )
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="size of the crops (default: that of files, presets and ImageNet's classifiers, otherwise 192 256)",
    )
    add_import(parser)
    add_json(parser, "the table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy models`: lists the networks with their size and cost.

    Raises:
        OSError, ValueError: if the size is not divisible by 32, or a name or a file is invalid.
    """
    from posedy.codecs import MSRACodec

    input_size = tuple(arguments.input_size) if arguments.input_size else None
    if input_size is not None:
        MSRACodec(input_size)  # rejects sizes that are not divisible by 32
    if arguments.networks:
        table = {"models": [_count(network, input_size) for network in arguments.networks]}
    else:
        table = _list_models(input_size or (192, 256))
    write_json(arguments.json, table)
    return 0


def _count(network: str, input_size: tuple[int, int] | None) -> dict[str, Any]:
    """Prints and returns the size and cost of a file, an architecture, or a backbone with an ImageNet classifier."""
    from posedy.models.classifier import Classifier
    from posedy.models.complexity import measure
    from posedy.models.factory import create_classifier, create_model
    from posedy.models.meta import meta_device
    from posedy.models.network_file import Network
    from posedy.models.pose_net import PoseNet
    from posedy.models.pretrained import is_classifier, load_checkpoint, load_classifier
    from posedy.models.registry import list_backbones, list_models, split_name

    net: Network
    is_of_timm = network.removeprefix("dy_").startswith("timm/")
    has_head = bool(split_name(network)[1])
    if network in list_backbones() or (is_of_timm and not has_head):
        with meta_device():
            net = create_classifier(network, [str(index) for index in range(_IMAGENET_CLASSES)])
    elif network in list_models() or is_of_timm:
        with meta_device():
            net = create_model(network, input_size=input_size or (192, 256))
    else:
        net = load_classifier(network) if is_classifier(Path(network)) else load_checkpoint(network)
        if input_size is not None and isinstance(net, PoseNet):
            net.check_input_size(input_size)
    width, height = input_size or net.input_size
    complexity = measure(net, (net.in_channels, height, width))
    what = f"{net.num_classes} classes" if isinstance(net, Classifier) else f"{net.num_keypoints} keypoints"
    print(
        f"{network:29}{complexity.parameters / 1e6:8.3f}M{complexity.madds / 1e6:8.1f}M  {net.name}, {height}x{width}, "
        f"{what}"
    )
    return {
        "name": net.name,
        "network": network,
        "input_size": [width, height],
        "parameters": complexity.parameters,
        "madds": complexity.madds,
    }


def _list_models(input_size: tuple[int, int]) -> dict[str, Any]:
    """Prints and returns the table of all networks."""
    from posedy.models.complexity import measure
    from posedy.models.factory import create_model
    from posedy.models.meta import meta_device
    from posedy.models.network_file import read_weights
    from posedy.models.registry import is_beyond_paper, list_models, list_presets, list_pretrained, weights_path

    width, height = input_size
    pretrained = {read_weights(weights_path(name))[0]["name"] for name in list_pretrained()}
    presets = {preset: read_weights(weights_path(preset))[0] for preset in list_presets()}
    print(f"Networks for {height}x{width} crops (height x width), 17 keypoints, K = 4 kernels in dynamic layers")
    print(f"\n{'':29}{'#Param':>9}{'MAdds':>9}")
    rows = []
    for name in list_models():
        try:
            with meta_device():
                net = create_model(name, input_size=(width, height))
        except ValueError as error:  # a registered part that does not fit the other one
            print(f"{name:29}left out: {error}")
            continue
        complexity = measure(net, (3, height, width))
        notes = ["not in the paper"] * is_beyond_paper(name) + ["pretrained"] * (name in pretrained)
        of_name = {preset: record["input_size"] for preset, record in presets.items() if record["name"] == name}
        notes += [f"preset {preset} ({height}x{width})" for preset, (width, height) in of_name.items()]
        print(
            f"{name:29}{complexity.parameters / 1e6:8.3f}M{complexity.madds / 1e6:8.1f}M  {', '.join(notes)}".rstrip()
        )
        rows.append(
            {
                "name": name,
                "parameters": complexity.parameters,
                "madds": complexity.madds,
                "beyond_paper": is_beyond_paper(name),
                "pretrained": name in pretrained,
                "presets": list(of_name),
            }
        )
    print("\n#Param includes batch norm; MAdds are the multiply-adds of one crop, counted during a forward pass.")
    return {"input_size": [width, height], "models": rows}
