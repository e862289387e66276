"""`posedy app`: run the web page."""

import argparse
import importlib.util
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from posedy.cli.options import (
    add_command,
    add_detector,
    add_detector_weights,
    add_device,
    add_import,
    add_runtime,
    check_detector_weights,
)


def register_parser(commands: Any) -> None:
    """Adds the command `posedy app` to the parser of all commands."""
    parser = add_command(
        commands,
        "app",
        "run a web page for images, videos and the camera",
        "posedy app\nposedy app --checkpoint runs/dy050/best.pt --port 8000",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--checkpoint",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a network file, or the name of a pretrained network, to list first; repeatable",
    )
    add_detector(parser)
    add_detector_weights(parser)
    add_device(parser)
    add_runtime(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 accepts connections from other computers (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=_parse_port, default=7860, help="port to listen at (default: 7860)")
    add_import(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C.

    Raises:
        OSError, ValueError: if gradio, a file, the device, the detector, the host or the port is not available.
        SystemExit: after SIGTERM and SIGHUP.
    """
    check_detector_weights(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the web page needs gradio: pip install 'posedy[app]'")
    from posedy.inference.detectors import check_detector, list_detectors
    from posedy.models.registry import list_presets, list_pretrained
    from posedy.system import choose_device

    choose_device(arguments.device)
    check_detector(arguments.detector)
    for path in arguments.checkpoint:
        _check_network(path)
    presets = list_presets()
    others = [name for name in list_pretrained() if name not in presets.values()]
    models = list(dict.fromkeys([*map(str, arguments.checkpoint), *presets, *others]))
    if not models:
        raise ValueError("no network is available: give one with --checkpoint FILE")
    from posedy.app.service import PoseService

    detectors = [arguments.detector, *(name for name in list_detectors() if name != arguments.detector)]
    weights = {} if arguments.detector_weights is None else {arguments.detector: arguments.detector_weights}
    options = tuple(models), tuple(detectors), weights, arguments.device, arguments.runtime
    with _exit_at_signals(), PoseService(*options) as service:
        if weights:
            service.load_detector(arguments.detector)
        # gradio reads it at its import; its default is a folder that all users of the computer share
        os.environ["GRADIO_TEMP_DIR"] = os.environ.get("GRADIO_TEMP_DIR") or str(service.folder / "gradio")
        from posedy.app.server import launch

        launch(
            service,
            arguments.host,
            arguments.port,
            lambda address: print(f"{address} shows the page; Ctrl-C ends it", flush=True),
        )
    return 0


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def _check_network(path: Path) -> None:
    """Checks that a file contains a network, without loading it into a runtime.

    Raises:
        OSError, ValueError: if it cannot be read, or contains something else.
    """
    from posedy.export.graph_file import read_graph
    from posedy.models.pretrained import load_checkpoint

    (read_graph if path.suffix.lower() == ".onnx" else load_checkpoint)(path)


@contextmanager
def _exit_at_signals() -> Iterator[None]:
    """Ends the program at SIGTERM and SIGHUP as at an error: its temporary files are deleted.

    Signals that are ignored, as SIGHUP after `nohup`, are still ignored.
    """

    def exit_program(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    caught = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # no SIGHUP on Windows
    caught = [number for number in caught if signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, exit_program)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
