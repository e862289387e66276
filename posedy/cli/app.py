"""`posedy app`: a web page for images, videos and the camera."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("app", help="a web page for images, videos and the camera")
    parser.set_defaults(run=run)
    parser.add_argument(
        "--checkpoint",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a network to choose beside the shipped ones, as often as you like",
    )
    parser.add_argument("--detector-weights", type=Path, metavar="FILE", help="default: torchvision's, fetched once")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other computers in (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the web page needs gradio: pip install 'posedy[app]'")
    missing = [path for path in arguments.checkpoint if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no checkpoint at {missing[0].absolute()}")
    from posedy.models.pretrained import list_pretrained

    models = [*map(str, arguments.checkpoint), *list_pretrained()]
    if not models:
        raise ValueError("there is no network to show: give one with --checkpoint FILE")
    from posedy.app.page import launch
    from posedy.app.service import PoseService

    looker = PoseService(tuple(models), arguments.detector_weights, arguments.device)
    launch(
        looker,
        arguments.host,
        arguments.port,
        lambda address: print(f"{address} shows the page; Ctrl-C ends it", flush=True),
    )
    return 0
