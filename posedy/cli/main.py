"""The parser of all commands, and what is done about their errors.

Every command is a module of this package with `register_parser` and `run`. Everything heavy is imported inside `run`,
so that `--help` answers at once.
"""

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import posedy
from posedy.cli import app, check, compare, detect, eval, export, models, predict, report, test, train
from posedy.cli.errors import describe_error

COMMANDS = (train, test, predict, eval, compare, report, detect, check, models, export, app)
"""The modules of the commands, in the order of `posedy --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 1 the work failed or its input is bad.

    Wrong usage exits with 2.
    """
    parser = make_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest:
        # Settings may stand after options too.
        if not hasattr(parsed, "overrides") or any(word.startswith("-") or "=" not in word for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parsed.overrides += rest
    previous_form = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"posedy {parsed.command}: warning: {message}\n"
    try:
        with _debug_messages(parsed.debug):
            return parsed.run(parsed)
    except KeyboardInterrupt:
        print(f"posedy {parsed.command}: stopped", file=sys.stderr)
        return 1
    except Exception as error:
        if parsed.debug:
            traceback.print_exception(error)
        rank = os.environ.get("RANK", "0")  # of several processes each says which it is
        process = f" (process {rank})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        print(f"posedy {parsed.command}{process}: {describe_error(error, parsed.debug)}", file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = previous_form


@contextmanager
def _debug_messages(shown: bool) -> Iterator[None]:
    """Shows the debug messages of posedy's loggers on standard error for the time of the block, if asked to."""
    logger = logging.getLogger("posedy")
    level, handler = logger.level, logging.StreamHandler()
    if shown:
        handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Parser(argparse.ArgumentParser):
    """A parser with --debug. The parsers of its commands are of this class too, so it may follow the command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # without a default, which would replace what stands before the command
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error, and debug messages",
        )


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it returns has `run`, which does the work."""
    parser = _Parser(prog="posedy", description="Human pose estimation with dynamic convolution.")
    parser.set_defaults(debug=False)
    parser.add_argument("--version", action="version", version=f"posedy {posedy.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.register_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
