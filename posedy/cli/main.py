"""The parser of all commands and the handling of their errors.

Each command is a module of this package with `register_parser` and `run`. Heavy packages are imported inside `run`, so
that `--help` is fast.
"""

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import posedy
from posedy.cli import app, check, compare, detect, eval, export, models, predict, report, test, train
from posedy.cli.errors import describe_error
from posedy.cli.options import format_examples

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "test": test,
    "predict": predict,
    "eval": eval,
    "compare": compare,
    "report": report,
    "detect": detect,
    "check": check,
    "models": models,
    "export": export,
    "app": app,
}
"""The module of each command, in the order of `posedy --help`."""

_EXAMPLES = """
posedy predict image.jpg --out predictions
posedy train configs/coco/dy_mobilenetv2_050-dy_bneck.yaml data.root=/data/coco --out runs/dy050
posedy COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed or bad input.

    Raises:
        SystemExit: with code 2 for wrong usage, and with 0 after `--help` and `--version`.
    """
    parser = make_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest:
        # argparse does not accept overrides after an option
        if not hasattr(parsed, "overrides") or any(word.startswith("-") or "=" not in word for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parsed.overrides += rest
    previous_format = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"posedy {parsed.command}: warning: {message}\n"
    try:
        with _debug_messages(parsed.debug):
            if imports := getattr(parsed, "imports", ()):
                from posedy.config.imports import import_modules

                import_modules(imports)
            return parsed.run(parsed)
    except KeyboardInterrupt:
        print(f"posedy {parsed.command}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        if parsed.debug:
            traceback.print_exception(error)
        rank = os.environ.get("RANK", "0")
        process = f" (process {rank})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        print(f"posedy {parsed.command}{process}: {describe_error(error, parsed.debug)}", file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = previous_format


@contextmanager
def _debug_messages(enabled: bool) -> Iterator[None]:
    """Shows the debug messages of posedy's loggers on standard error within the block, if enabled."""
    logger = logging.getLogger("posedy")
    level, handler = logger.level, logging.StreamHandler()
    if enabled:
        handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Parser(argparse.ArgumentParser):
    """A parser with `--debug`; subparsers inherit the class, so the option may also follow the command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # a subparser's default would overwrite the value given before the command
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show debug messages, and the traceback of an error",
        )


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of all commands; `run` of a parsed namespace is the function of the command."""
    parser = _Parser(
        prog="posedy",
        description="Human pose estimation with dynamic convolution.",
        epilog=format_examples(_EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(debug=False)
    parser.add_argument("--version", action="version", version=f"posedy {posedy.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS.values():
        command.register_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
