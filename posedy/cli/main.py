"""The parser of all commands and the handling of their errors.

Each command is a module of this package with `register_parser` and `run`. Heavy packages are imported inside `run`, so
that `--help` is fast.
"""

import argparse
import io
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
from posedy.cli import (
    app,
    check,
    compare,
    convert,
    detect,
    eval,
    export,
    models,
    predict,
    report,
    test,
    test_classifier,
    train,
    train_classifier,
)
from posedy.cli.errors import describe_error
from posedy.cli.options import check_json, format_examples
from posedy.registration import nearest_name

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "test": test,
    "train-classifier": train_classifier,
    "test-classifier": test_classifier,
    "predict": predict,
    "eval": eval,
    "compare": compare,
    "report": report,
    "detect": detect,
    "check": check,
    "convert": convert,
    "models": models,
    "export": export,
    "app": app,
}
"""The module of each command, in the order of `posedy --help`."""

_SIGPIPE_STATUS = 141  # exit code of a program that SIGPIPE ends: 128 + 13

_EXAMPLES = """
posedy predict image.jpg --out predictions
posedy train configs/coco/dy_mobilenetv2_050-dy_bneck.yaml data.root=/data/coco --out runs/dy050
posedy COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed or bad input, 141 if the output's reader has ended.

    Raises:
        SystemExit: with code 2 for wrong usage, and with 0 after `--help` and `--version`.
    """
    _escape_unprintable_text()
    parser = make_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest:
        # argparse does not accept overrides after an option
        if not hasattr(parsed, "overrides") or any(word.startswith("-") or "=" not in word for word in rest):
            parsed.parser.error(_describe_unknown(rest, parsed.parser))
        parsed.overrides += rest
    check_json(parsed)
    previous_format = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"posedy {parsed.command}: warning: {message}\n"
    try:
        with _messages(parsed.command, parsed.debug):
            if imports := getattr(parsed, "imports", ()):
                from posedy.config.imports import import_modules

                import_modules(imports)
            status = parsed.run(parsed)
            print(end="", flush=True)  # an error of the output would otherwise come at exit
            return status
    except KeyboardInterrupt:
        print(f"posedy {parsed.command}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return _SIGPIPE_STATUS
        if parsed.debug:
            traceback.print_exception(error)
        rank = os.environ.get("RANK", "0")
        process = f" (process {rank})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        print(f"posedy {parsed.command}{process}: {describe_error(error, parsed.debug)}", file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = previous_format


def _escape_unprintable_text() -> None:
    """Prints characters that the terminal's encoding lacks, such as in file names, as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _describe_unknown(arguments: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """Describes arguments that a command does not have, with the option that is nearest to the first of them."""
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    unknown = next((word.partition("=")[0] for word in arguments if word.startswith("-")), None)
    hint = f"; the option nearest to {unknown} is {nearest_name(unknown, options)}" if unknown is not None else ""
    return f"unrecognized arguments: {' '.join(arguments)}{hint}"


def _output_is_closed() -> bool:
    """Returns whether the reader of standard output has ended, such as `head`; what is left is discarded then."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


@contextmanager
def _messages(command: str, debug: bool) -> Iterator[None]:
    """Shows the messages of posedy's logger on standard error within the block; debug messages if `debug` is set."""
    logger = logging.getLogger("posedy")
    level, handler = logger.level, logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(name)s: %(levelname)s: %(message)s" if debug else f"posedy {command}: %(message)s")
    )
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
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

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Rejects an unknown command with the nearest name, instead of a list of all."""
        if action.dest == "command" and value not in (action.choices or ()):
            nearest = nearest_name(value, COMMANDS)
            self.error(f"unknown command {value!r}; the nearest name is {nearest!r}; posedy --help lists all")
        super()._check_value(action, value)


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
