"""Writes the network that a training run starts with, to evaluate it with `posedy test` before it is trained.

python -m tools.lab.initial_network configs/real/five_keypoints.yaml --out runs/five_keypoints/before.pt

It is the network of `posedy train` with the same configuration before the first step: pretrained weights, and random
ones of the same seed for what they lack.
"""

import argparse
from pathlib import Path

import torch

from posedy.config import Config, load_config
from posedy.data.coco import read_coco
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import save_checkpoint
from posedy.training.pose_setup import build_network
from tools.lab.entry import run_and_exit


def initial_network(config: Config) -> PoseNet:
    """Creates the network of a configuration as it is before training.

    Raises:
        OSError, ValueError: if the validation set or the weights cannot be read or do not fit.
    """
    val = config.data.val_set  # which has the keypoints of the training set, also of shards
    skeleton = read_coco(val.annotations, overrides=config.data.skeleton).skeleton
    torch.manual_seed(config.train.seed)
    return build_network(config, skeleton, print, config.model.weights)


def main(argv: list[str] | None = None) -> None:
    """Writes the network."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.initial_network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/real/five_keypoints.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration values")
    parser.add_argument("--out", type=Path, required=True, help="NAME.pt or NAME.safetensors")
    arguments = parser.parse_args(argv)
    save_checkpoint(initial_network(load_config(arguments.config, arguments.overrides)), arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    run_and_exit(main, "initial_network")
