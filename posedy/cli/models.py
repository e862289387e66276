"""`posedy models`: list the networks with their size and cost."""

import argparse
from typing import Any

from posedy.cli.options import add_command, add_import, add_json, write_json


def register_parser(commands: Any) -> None:
    """Adds the command to the main parser."""
    parser = add_command(
        commands,
        "models",
        "list the networks with their size and cost",
        "posedy models --input-size 192 256",
    )
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        default=[192, 256],
        metavar=("WIDTH", "HEIGHT"),
        help="size of the crops (default: 192 256)",
    )
    add_import(parser)
    add_json(parser, "the table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        ValueError: if the size is not divisible by 32.
    """
    from posedy.codecs import MSRACodec
    from posedy.models.complexity import measure, meta_device
    from posedy.models.factory import create_model
    from posedy.models.network_file import read_weights
    from posedy.models.registry import is_beyond_paper, list_models, list_presets, list_pretrained, weights_path

    width, height = arguments.input_size
    MSRACodec((width, height))  # rejects sizes that are not divisible by 32
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
    write_json(arguments.json, {"input_size": [width, height], "models": rows})
    return 0
