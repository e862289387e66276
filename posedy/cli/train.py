"""`posedy train`: train a network."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from posedy.cli.options import add_command, add_config, add_import, add_json, add_run, check_run

if TYPE_CHECKING:
    from posedy.config import ClassifierConfig, Config
    from posedy.training.distributed import DistributedContext
    from posedy.training.task import Task

    LoadConfig = Callable[..., Config | ClassifierConfig]
    MakeTask = Callable[[Any, DistributedContext], Task]

COMMON_KEYS = (
    ("data.root", "data/coco", "folder with annotations/, train2017/ and val2017/"),
    ("model.name", "dy_mobilenetv2_050-dy_bneck", "architecture, see posedy models"),
    ("model.input_size", "[192, 256]", "width and height of the crops"),
    ("model.weights", "null", "initial weights: a checkpoint, or ImageNet weights of the backbone"),
    ("train.epochs", "210", ""),
    ("train.batch_size", "128", "persons per step, over all devices"),
    ("train.lr", "0.001", "learning rate"),
    ("train.precision", "fp32", "fp32, bf16, fp16 or auto"),
    ("train.workers", "null", "data loader processes per device; null: one per CPU core, at most 8"),
    ("eval.every", "10", "epochs between evaluations"),
)
"""The configuration keys in the command's help: key, default and meaning.

They are copied from `posedy.config`, which imports torch and would slow the help down; a test compares the defaults.
"""

_PRINT_KEYS = 'python -c "import posedy.config; print(posedy.config.Config().to_yaml())"'

_EXAMPLE = """
posedy train configs/coco/dy_mobilenetv2_050-dy_bneck.yaml data.root=/data/coco --out runs/dy050
posedy train configs/coco/dy_mobilenetv2_050-dy_bneck.yaml train.batch_size=32 train.lr=2.5e-4 --dry-run
"""


def register_parser(commands: Any) -> None:
    """Adds the command `posedy train` to the parser of all commands."""
    parser = add_command(commands, "train", "train a network, or resume a training run", _EXAMPLE)
    rows = "\n".join(f"  {key:17} {default:28} {meaning}".rstrip() for key, default, meaning in COMMON_KEYS)
    parser.epilog = (
        f"common configuration keys, with their defaults:\n{rows}\n"
        f"\nall keys, with their defaults:\n  {_PRINT_KEYS}\n\n{parser.epilog}"
    )
    add_config(parser)
    add_run(parser)
    add_import(parser)
    add_json(parser, "the metrics, or the measurements of a dry run,")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy train`: trains a network, or resumes a training run.

    Raises:
        OSError, ValueError: if the configuration or the data are invalid, or do not fit the run to resume.
    """
    check_run(arguments)
    from posedy.config import load_config
    from posedy.training.pose_task import PoseTask

    return train(arguments, load_config, PoseTask)


def train(arguments: argparse.Namespace, load: "LoadConfig", make_task: "MakeTask") -> int:
    """Trains what a task is made for, with the options of `add_config` and `add_run`."""
    from posedy.system import keep_freed_memory
    from posedy.training import run

    config = load(arguments.config, arguments.overrides)
    keep_freed_memory()
    run.train(
        config,
        arguments.out,
        dry_run=arguments.dry_run,
        stop_after_epochs=arguments.stop_after_epochs,
        accept_changes=arguments.accept_changes,
        json=arguments.json,
        make_task=make_task,
    )
    return 0
