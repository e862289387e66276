"""Options and helpers shared by the commands."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from posedy.files import check_writable, write_json_atomically

if TYPE_CHECKING:
    from posedy.config import SkeletonConfig
    from posedy.data.coco import GroundTruth

DETECTOR = "posedy"
"""The default of `--detector`."""
_DETECTORS_WITH_WEIGHTS = ("posedy", "torchvision")

RENAMED_OPTIONS = {
    "predict": {
        "--whole": "--full-image",
        "--detect": "--detector",
        "--threshold": "--keypoint-threshold",
    }
}
"""Option names of earlier versions and their current names, by command."""


class _RenamedOption(argparse.Action):
    """An option of an earlier version; using it is an error that names the new option."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error(f"{self.option_strings[0]} was renamed: use {self.const}")


def add_command(
    commands: Any, name: str, summary: str, example: str, aliases: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Adds a command and returns its parser.

    Args:
        commands: the subparsers of the main parser.
        name: the command.
        summary: one line, shown by `posedy --help` and by the command's own help.
        example: command lines, shown below the options.
        aliases: other names of the command, which `posedy --help` does not list.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=format_examples(example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(parser=parser)
    for alias in aliases:
        commands.choices[alias] = parser
    for old, new in RENAMED_OPTIONS.get(name, {}).items():
        parser.add_argument(old, action=_RenamedOption, nargs="?", const=new, help=argparse.SUPPRESS)
    return parser


def format_examples(text: str) -> str:
    """Formats example command lines for a help text: indented, below a heading."""
    lines = "\n".join(f"  {line}" for line in text.strip().splitlines())
    return f"{'examples' if text.count('posedy ') > 1 else 'example'}:\n{lines}"


def add_import(parser: argparse.ArgumentParser) -> None:
    """Adds `--import MODULE`, for modules that register backbones, heads, codecs or detectors."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module that registers backbones, heads, codecs or detectors; repeatable",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--device`, on which the network runs."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--runtime`, the library that runs the network."""
    parser.add_argument(
        "--runtime",
        choices=("auto", "torch", "onnxruntime", "openvino"),
        default="auto",
        help="runtime of the network; auto uses OpenVINO on CPUs if it is installed, otherwise PyTorch, and for .onnx "
        "files the runtime they were exported for (default: auto)",
    )


def add_detector(parser: argparse._ActionsContainer, default: str | None = DETECTOR) -> None:
    """Adds `--detector` to a parser or a group of options."""
    parser.add_argument(
        "--detector",
        default=default,
        metavar="NAME",
        help="the person detector: posedy (the light one in the package), torchvision, full-image (each full image is "
        "the box of one person), or a name that a module given with --import registers (default: posedy)",
    )


def add_detector_weights(parser: argparse._ActionsContainer) -> None:
    """Adds `--detector-weights` to a parser or a group of options."""
    parser.add_argument(
        "--detector-weights",
        type=Path,
        metavar="FILE",
        help="weights of the detector posedy or torchvision (default: those in the package; for torchvision its own, "
        "downloaded once)",
    )


def check_detector_weights(arguments: argparse.Namespace) -> None:
    """Exits with a usage error if `--detector-weights` is given for a detector without weights of its own."""
    if arguments.detector_weights is not None and arguments.detector not in _DETECTORS_WITH_WEIGHTS:
        arguments.parser.error(f"--detector-weights is only for --detector {' and '.join(_DETECTORS_WITH_WEIGHTS)}")


def add_json(parser: argparse.ArgumentParser, content: str = "the metrics") -> None:
    """Adds `--json FILE` to a command that prints `content`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write {content} to a JSON file")


def check_json(arguments: argparse.Namespace) -> None:
    """Exits with a usage error if `--json FILE` cannot be written, or would overwrite an input or a file of no JSON."""
    target: Path | None = getattr(arguments, "json", None)
    if target is None:
        return
    for name, value in vars(arguments).items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if name != "json" and isinstance(item, str | Path):
                for path in {str(item), str(item).partition("=")[2]}:  # of an override: data.val_annotations=FILE
                    if path and "\0" not in path and Path(path).resolve() == target.resolve():
                        arguments.parser.error(f"--json {target} would overwrite {path}: choose another file")
    try:
        check_writable(target)
    except OSError as error:
        arguments.parser.error(f"--json {error}")
    if target.is_file() and not target.read_bytes()[:64].lstrip().startswith((b"{", b"[")):
        arguments.parser.error(f"--json {target} would overwrite a file that is not JSON: choose another file")


def write_json(path: Path | None, value: Any) -> None:
    """Writes a value to the file given with `--json`; does nothing without one."""
    if path is not None:
        write_json_atomically(path, value, indent=2)


def add_config(
    parser: argparse.ArgumentParser,
    example: str = "data.root=/data/coco train.epochs=210",
    file: str = "configs/coco/dy_mobilenetv2_050-dy_bneck.yaml",
) -> None:
    """Adds the arguments CONFIG, a configuration file, and `key=value`, its overrides, with examples of both."""
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG",
        help=f"a YAML file, such as {file}",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"configuration values, such as {example}",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training run: its folder, the dry run, and how it is resumed."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the run folder; an existing run is resumed from its last checkpoint",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run a few steps, print the expected time and memory of the training run, and write nothing",
    )
    parser.add_argument(
        "--stop-after-epochs", type=int, metavar="N", help="stop after N epochs; the same command resumes the run"
    )
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="resume although the configuration changes training results",
    )


def check_run(arguments: argparse.Namespace) -> None:
    """Checks the options of `add_run`, and exits with their usage if one is wrong."""
    if arguments.out is None and not arguments.dry_run:
        arguments.parser.error("--out is required without --dry-run: give the run's folder, such as --out runs/mine")
    if arguments.stop_after_epochs is not None and arguments.stop_after_epochs < 1:
        arguments.parser.error(f"--stop-after-epochs: expected at least 1, got {arguments.stop_after_epochs}")


def add_skeleton(parser: argparse.ArgumentParser) -> None:
    """Adds the options that override the annotation file's keypoint definitions."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="take the keypoint definitions of a configuration (data.skeleton)"
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        metavar="S",
        help="OKS sigmas, one for all keypoints or one per keypoint; put the files to evaluate before this option "
        "(default: the annotation file's)",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Adds `--backend`, the implementation of COCOeval."""
    parser.add_argument(
        "--backend",
        choices=("pycocotools", "hotcoco"),
        default="pycocotools",
        help="implementation that computes AP and AR (default: pycocotools); intervals always use pycocotools",
    )


def add_ground_truth(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that compare results files with ground truth."""
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE",
        help="the ground truth, such as person_keypoints_val2017.json",
    )
    add_skeleton(parser)
    add_backend(parser)


def read_ground_truth(arguments: argparse.Namespace) -> "GroundTruth":
    """Reads the annotation file, with the keypoint definitions of `--config` and `--sigmas`."""
    from posedy.data.coco import GroundTruth

    return GroundTruth.from_coco(arguments.annotations, read_skeleton(arguments))


def read_skeleton(arguments: argparse.Namespace) -> "SkeletonConfig":
    """Reads the keypoint definitions that `--config` and `--sigmas` give."""
    from posedy.config import SkeletonConfig, load_config

    skeleton = load_config(arguments.config).data.skeleton if arguments.config is not None else SkeletonConfig()
    if arguments.sigmas is not None:
        [first, *others] = arguments.sigmas
        skeleton = skeleton.model_copy(update={"sigmas": arguments.sigmas if others else first})
    return skeleton


def format_sigmas(ground_truth: "GroundTruth") -> str:
    """Formats the OKS sigmas for the protocol that is printed; "" if they are those of COCO's keypoints."""
    from posedy.skeleton import COCO17, Skeleton

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluation repeats them
        sigmas = Skeleton.from_coco_category(ground_truth.category).sigmas
    if sigmas == COCO17.sigmas:
        return ""
    return f", sigmas {', '.join(f'{sigma:g}' for sigma in sigmas)}"


def parse_score(text: str) -> float:
    """Parses a score from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: if the text is not a score.
    """
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text!r}")
    return score


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ends the block by SystemExit at SIGTERM, so that temporary files are deleted, and at SIGHUP as Ctrl-C does.

    SIGHUP comes when the terminal is closed; what is printed there afterwards is dropped. It stays ignored after
    `nohup`. Does nothing outside the main thread, where signals cannot be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [file for file in (1, 2) if os.isatty(file)]  # writing to a closed one is an error

    def terminate(number: int, frame: object) -> None:
        sys.exit(128 + number)

    def hang_up(number: int, frame: object) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        for file in terminals:
            os.dup2(nothing, file)
        os.close(nothing)
        raise KeyboardInterrupt

    handlers: dict[int, Callable[[int, object], None]] = {signal.SIGTERM: terminate}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        handlers[signal.SIGHUP] = hang_up
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
