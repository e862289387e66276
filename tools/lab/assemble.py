"""Assembles a network from the backbone of one and the head of another, for further training.

python -m tools.lab.assemble dy_mobilenetv2_050-fpn --backbone dy_mobilenetv2_050-dy_bneck --head mobilenetv2_100-fpn \
    --out data/real/light.safetensors

All tensors of the backbone are loaded; those of the head where name and shape agree, the others are random.
"""

import argparse
from pathlib import Path

import torch

from posedy.files import check_writable
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint
from posedy.models.registry import list_options, split_name
from tools.lab.entry import run_and_exit

_OF_THE_HEAD = ("output", "codec", "sigma")


def assemble(name: str, backbone: PoseNet, head: PoseNet, seed: int = 0) -> tuple[PoseNet, list[str]]:
    """Creates a network with the backbone of one network and the head of another, in evaluation mode.

    Args:
        name: the name of the new network; its backbone is that of `backbone`.
        backbone: the network whose backbone and its options are used.
        head: the network whose head, codec, output, skeleton and crop size are used.
        seed: seed of the other weights.

    Returns:
        The network, and the names of the tensors of its head that are random.

    Raises:
        ValueError: if the backbones, or the kinds of the heads, have different names.
    """
    for part, source, index in (("backbone", backbone, 0), ("head", head, 1)):
        wanted, given = split_name(name)[index], split_name(source.name)[index]
        if wanted.removeprefix("dy_" if index else "") != given.removeprefix("dy_" if index else ""):
            raise ValueError(f"the {part} of {name} is {wanted}, that of {source.name} is {given}")
    options = {option: head.options[option] for option in _OF_THE_HEAD if option in head.options}
    options["num_kernels"] = backbone.options["num_kernels"]
    of_backbone = [option for option in list_options(split_name(name)[0]) if option in backbone.options]
    options |= {option: backbone.options[option] for option in of_backbone}
    torch.manual_seed(seed)
    net = create_model(
        name, num_keypoints=head.num_keypoints, input_size=head.input_size, skeleton=head.skeleton, **options
    )
    net.backbone.load_state_dict(backbone.backbone.state_dict())
    state, given_head = net.head.state_dict(), head.head.state_dict()
    loaded = {key for key, tensor in state.items() if key in given_head and given_head[key].shape == tensor.shape}
    net.head.load_state_dict(state | {key: given_head[key] for key in loaded})
    return net.eval(), sorted(state.keys() - loaded)


def main(argv: list[str] | None = None) -> None:
    """Writes the network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="the name of the new network")
    parser.add_argument("--backbone", required=True, metavar="MODEL", help="a pretrained network, or a checkpoint")
    parser.add_argument("--head", required=True, metavar="MODEL", help="a pretrained network, or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.safetensors")
    arguments = parser.parse_args(argv)
    check_writable(arguments.out)
    net, fresh = assemble(arguments.name, load_checkpoint(arguments.backbone), load_checkpoint(arguments.head))
    save_weights(net, arguments.out)
    print(f"wrote {arguments.out}: {net.name}; random: {', '.join(fresh) or 'nothing'}")


if __name__ == "__main__":
    run_and_exit(main, "assemble")
