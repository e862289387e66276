"""`posedy app`: run the web page."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

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
    """Adds the command to the main parser."""
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
        help="a network file to list besides the pretrained networks; repeatable",
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
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (default: 7860)")
    add_import(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C.

    Raises:
        OSError, ValueError: if gradio, a file, the detector or the port is not available.
    """
    check_detector_weights(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the web page needs gradio: pip install 'posedy[app]'")
    missing = [path for path in arguments.checkpoint if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no checkpoint at {missing[0].absolute()}")
    from posedy.inference.detectors import check_detector, list_detectors
    from posedy.models.registry import list_presets, list_pretrained

    check_detector(arguments.detector)
    presets = list_presets()
    others = [name for name in list_pretrained() if name not in presets.values()]
    models = [*map(str, arguments.checkpoint), *presets, *others]
    if not models:
        raise ValueError("no network is available: give one with --checkpoint FILE")
    from posedy.app.page import launch
    from posedy.app.service import PoseService

    detectors = [arguments.detector, *(name for name in list_detectors() if name != arguments.detector)]
    weights = {} if arguments.detector_weights is None else {arguments.detector: arguments.detector_weights}
    service = PoseService(tuple(models), tuple(detectors), weights, arguments.device, arguments.runtime)
    launch(
        service,
        arguments.host,
        arguments.port,
        lambda address: print(f"{address} shows the page; Ctrl-C ends it", flush=True),
    )
    return 0
