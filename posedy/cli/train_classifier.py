"""`posedy train-classifier`: train an image classifier."""

import argparse
from typing import Any

from posedy.cli.options import add_command, add_config, add_import, add_json, add_run, check_run
from posedy.cli.train import train

_EXAMPLE = """
posedy train-classifier configs/imagenet/dy_resnet18.yaml data.root=/data/imagenet --out runs/dy_resnet18
posedy train-classifier configs/imagenet/mobilenetv2_050.yaml data.root=birds model.input_size=128 --dry-run
"""

_PRINT_KEYS = 'python -c "import posedy.config; print(posedy.config.ClassifierConfig().to_yaml())"'


def register_parser(commands: Any) -> None:
    """Adds the command `posedy train-classifier` to the parser of all commands."""
    parser = add_command(
        commands,
        "train-classifier",
        "train an image classifier, or resume a training run",
        _EXAMPLE,
    )
    parser.epilog = f"all keys, with their defaults:\n  {_PRINT_KEYS}\n\n{parser.epilog}"
    add_config(parser, "data.root=/data/imagenet train.epochs=10", "configs/imagenet/dy_resnet18.yaml")
    add_run(parser)
    add_import(parser)
    add_json(parser, "the metrics, or the measurements of a dry run,")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy train-classifier`: trains an image classifier, or resumes a training run.

    Raises:
        OSError, ValueError: if the configuration or the data are invalid, or do not fit the run to resume.
    """
    check_run(arguments)
    from posedy.config import load_classifier_config
    from posedy.training.classifier_task import ClassifierTask

    return train(arguments, load_classifier_config, ClassifierTask)
