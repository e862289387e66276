"""`posedy train`: trains a network."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_config, add_json


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("train", help="train a network; the same --out goes on from its last checkpoint")
    add_config(parser)
    parser.add_argument("--out", type=Path, help="the run's folder; only --dry-run needs none")
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, make a few steps, say how long all will take, stop"
    )
    parser.add_argument(
        "--stop-after-epochs", type=int, metavar="N", help="end after N epochs; the same command goes on from there"
    )
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with a configuration that changes the mathematics"
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if the configuration, the data or an earlier run do not fit.
    """
    from posedy.config import load_config
    from posedy.system import keep_freed_memory
    from posedy.training.run import train

    if arguments.out is None and not arguments.dry_run:
        arguments.parser.error("--out is needed, the folder of the run, such as --out runs/mine")
    if arguments.stop_after_epochs is not None and arguments.stop_after_epochs < 1:
        arguments.parser.error(f"--stop-after-epochs counts from 1, got {arguments.stop_after_epochs}")
    config = load_config(arguments.config, arguments.overrides)
    keep_freed_memory()
    train(
        config,
        arguments.out,
        dry_run=arguments.dry_run,
        stop_after_epochs=arguments.stop_after_epochs,
        accept_changes=arguments.accept_changes,
        json=arguments.json,
    )
    return 0
