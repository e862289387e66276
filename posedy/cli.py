"""The command line: parse, call the package, print. `posedy COMMAND --help` tells what each command takes."""

import argparse
import dataclasses
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import posedy
from posedy.benchmark.command_line import add_benchmark
from posedy.error_report import describe_error
from posedy.json_option import add_json, write_json
from posedy.report.command_line import add_compare, add_eval, add_report

# Everything heavy is imported by the command that needs it, so that --help answers at once.


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
    for add in (
        _add_train,
        _add_sweep,
        _add_test,
        _add_inspect,
        add_eval,
        add_compare,
        add_report,
        _add_check,
        _add_demo,
        _add_detect,
        _add_app,
        _add_export,
        _add_synth,
        _add_models,
        add_benchmark,
    ):
        add(commands)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/coco/dy_mobilenetv2_050-dy_bneck.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as data.root=/data/coco train.epochs=210"
    )


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train a network; the same --out goes on from its last checkpoint")
    _add_config(parser)
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
    parser.set_defaults(run=_train, parser=parser)


def _train(arguments: argparse.Namespace) -> int:
    from posedy.config import load_config
    from posedy.memory import keep_freed_memory
    from posedy.training.command import train

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


def _add_sweep(commands: Any) -> None:
    parser = commands.add_parser(
        "sweep", help="train the rows of a table, each with several seeds; the same --out goes on where it stopped"
    )
    parser.add_argument("sweep", type=Path, help="a YAML file, such as configs/sweeps/table10.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of all rows")
    parser.add_argument("--config", type=Path, help="the configuration of all rows, in place of the file's own")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, table.md and sweep.json")
    add_json(parser)
    parser.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    from posedy.memory import keep_freed_memory
    from posedy.training.sweep import read_sweep, run_sweep

    sweep = read_sweep(arguments.sweep, arguments.config, arguments.overrides)
    keep_freed_memory()
    write_json(arguments.json, run_sweep(sweep, arguments.out))
    return 0


def _add_test(commands: Any) -> None:
    parser = commands.add_parser("test", help="measure a network on a COCO set")
    _add_config(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a .pt or .safetensors file")
    parser.add_argument(
        "--boxes",
        action="append",
        metavar="FILE",
        help="'gt', or a detector's boxes as COCO results; given several times, each has a folder of its own in OUT; "
        "default: data.boxes, else gt",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics.json, results.json, persons.jpg")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    add_json(parser)
    parser.set_defaults(run=_test, parser=parser)


def _test(arguments: argparse.Namespace) -> int:
    from posedy.config import load_config
    from posedy.evaluation.command import measure_checkpoint
    from posedy.memory import keep_freed_memory

    keep_freed_memory()
    config = load_config(arguments.config, arguments.overrides)
    choices = arguments.boxes or [str(config.data.boxes or "gt")]
    names = [Path(boxes).stem for boxes in choices]
    if len(set(names)) < len(names):
        arguments.parser.error(
            f"--boxes: the names of {', '.join(choices)} are those of their folders, and not distinct"
        )
    measured = {}
    for boxes, name in zip(choices, names, strict=True):
        config.data.boxes = None if boxes == "gt" else Path(boxes)
        out = arguments.out if len(choices) == 1 else arguments.out / name
        measured[name] = measure_checkpoint(config, arguments.checkpoint, out, arguments.device)
    if len(choices) > 1:
        print("\n" + "\n".join(f"AP {numbers['AP']:.3f}  boxes={name}" for name, numbers in measured.items()))
    write_json(arguments.json, measured if len(choices) > 1 else measured[names[0]])
    return 0


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser("inspect", help="what the attention of a trained dynamic network does")
    parser.add_argument("checkpoint", type=Path, help="a .pt or .safetensors file, such as runs/x/best.pt")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as data.root=/data/coco eval.flip=false"
    )
    parser.add_argument("--config", type=Path, help="the network's YAML file; default: config.yaml beside CHECKPOINT")
    parser.add_argument(
        "--out", type=Path, help="folder for inspection.json and attention.png; default: inspect beside CHECKPOINT"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    add_json(parser)
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from posedy.config import load_config
    from posedy.inspection.inspection import config_beside, inspect_checkpoint

    checkpoint = arguments.checkpoint
    config = load_config(arguments.config or config_beside(checkpoint), arguments.overrides)
    out = arguments.out or checkpoint.parent / "inspect"
    write_json(arguments.json, inspect_checkpoint(config, checkpoint, out, arguments.device))
    return 0


def _add_check(commands: Any) -> None:
    parser = commands.add_parser("check", help="say what is wrong with a COCO keypoint file")
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", type=Path, help="the folder of its photos, to check them too")
    parser.add_argument("--decode", action="store_true", help="decode every photo, to find damage inside")
    add_json(parser)
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from posedy.data.check import check_coco

    report = check_coco(arguments.annotations, arguments.images, arguments.decode)
    print(report.format())
    write_json(arguments.json, {"ok": report.ok, "findings": [dataclasses.asdict(item) for item in report.findings]})
    return 0 if report.ok else 1


def _add_demo(commands: Any) -> None:
    from posedy.inference import demo

    parser = commands.add_parser("demo", help="draw the keypoints of photos, videos or a camera")
    demo.add_arguments(parser)
    parser.set_defaults(run=demo.run)


def _add_detect(commands: Any) -> None:
    from posedy.inference import detect

    parser = commands.add_parser("detect", help="find the persons of photos with torchvision's detector")
    detect.add_arguments(parser)
    parser.set_defaults(run=detect.run)


def _add_app(commands: Any) -> None:
    from posedy.app import command

    parser = commands.add_parser("app", help="a web page for photos, videos and the camera")
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _add_export(commands: Any) -> None:
    from posedy.deploy import command

    parser = commands.add_parser(
        "export", help="write a trained network to a file of its own, for PyTorch or for other runtimes"
    )
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _add_synth(commands: Any) -> None:
    parser = commands.add_parser("synth", help="draw a data set of people in COCO's format")
    parser.add_argument("out", type=Path, help="the folder of the data set, such as data/drawn")
    parser.add_argument("--train", type=int, default=700, help="photos to train on")
    parser.add_argument("--val", type=int, default=128, help="photos to test on")
    parser.add_argument("--seed", type=int, default=0, help="which decides everything drawn")
    add_json(parser)
    parser.set_defaults(run=_synth)


def _synth(arguments: argparse.Namespace) -> int:
    from posedy.data.synthetic import draw_dataset
    from posedy.data.synthetic.layout import keypoints_file
    from posedy.evaluation.difficulty import difficulty

    statistics = draw_dataset(arguments.out, arguments.train, arguments.val, arguments.seed, progress=True)
    report = {}
    for split, drawn in statistics.items():
        report[split] = difficulty(drawn, arguments.out / keypoints_file(split))
        numbers = [
            f"{name} {value if isinstance(value, int) else f'{value:.3f}'}" for name, value in report[split].items()
        ]
        print(f"{split}: {', '.join(numbers)}")
    write_json(arguments.json, report)
    return 0


def _add_models(commands: Any) -> None:
    parser = commands.add_parser("models", help="list the networks with their size and cost, beside the paper's")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--input-size", type=int, nargs=2, default=[192, 256], metavar=("WIDTH", "HEIGHT"), help="of crops: 192 256"
    )
    sizes.add_argument(
        "--paper", action="store_true", help="the paper's Tables 1, 8, 9 and 10 with our numbers instead"
    )
    add_json(parser)
    parser.set_defaults(run=_models)


def _models(arguments: argparse.Namespace) -> int:
    from posedy.paper.comparison import compare_models, compare_tables, models_to_json, tables_to_json
    from posedy.paper.comparison_report import format_models, format_tables

    if arguments.paper:
        tables = compare_tables()
        print(format_tables(tables))
        write_json(arguments.json, tables_to_json(tables))
    else:
        width, height = arguments.input_size
        rows = compare_models((width, height))
        print(format_models(rows, (width, height)))
        write_json(arguments.json, models_to_json(rows, (width, height)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
