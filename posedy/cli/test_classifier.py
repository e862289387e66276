"""`posedy test-classifier`: top-1 and top-5 of an image classifier."""

import argparse
import math
from pathlib import Path
from typing import Any

from posedy.cli.options import add_command, add_device, add_import, add_json, write_json

_EXAMPLE = """
posedy test-classifier runs/dy_resnet18/best.pt /data/imagenet --out results
posedy test-classifier runs/dy_resnet18/best.pt /data/imagenet --size 160 --json metrics.json
"""


def register_parser(commands: Any) -> None:
    """Adds the command `posedy test-classifier` to the parser of all commands."""
    parser = add_command(commands, "test-classifier", "measure top-1 and top-5 of an image classifier", _EXAMPLE)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint of posedy train-classifier")
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with val/CLASS/IMAGE")
    parser.add_argument("--split", default="val", metavar="NAME", help="folder of ROOT (default: val)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the crops (default: that of the training)")
    parser.add_argument(
        "--resize",
        type=float,
        default=256 / 224,
        metavar="RATIO",
        help="shorter side of the resized images relative to the crops, as eval.resize (default: 256 / 224)",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write FOLDER/metrics.json")
    add_device(parser)
    add_import(parser)
    add_json(parser)
    parser.description = f"{parser.description}\n\nUnder torchrun, each process predicts a share of the images."
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy test-classifier`: measures top-1 and top-5 of an image classifier.

    Raises:
        OSError, ValueError: if the checkpoint or the images are invalid.
    """
    if min(arguments.batch_size, 32 if arguments.size is None else arguments.size) < 1:
        arguments.parser.error("--batch-size and --size: expected at least 1")
    if not 1 <= arguments.resize < math.inf:
        arguments.parser.error(f"--resize: expected at least 1, got {arguments.resize}")
    from accelerate import Accelerator

    from posedy.config import ClassifierEvalConfig
    from posedy.data.image_folder import LabeledImages
    from posedy.evaluation.classifier_eval import ClassifierTest, format_top
    from posedy.evaluation.processes import join_processes, printing_once
    from posedy.files import check_writable, write_json_atomically
    from posedy.models.pretrained import load_classifier
    from posedy.system import choose_device, default_num_workers, local_device

    out = arguments.out / "metrics.json" if arguments.out is not None else None
    if out is not None:
        check_writable(out)
    net = load_classifier(arguments.checkpoint)
    images = LabeledImages.read(arguments.root, arguments.split).with_classes(net.classes, str(arguments.checkpoint))
    size = arguments.size or net.input_size[0]
    config = ClassifierEvalConfig(batch_size=arguments.batch_size, resize=arguments.resize)
    accelerator = join_processes() or Accelerator(cpu=True)
    device = choose_device(local_device(arguments.device))
    with printing_once(accelerator):
        test = ClassifierTest(
            images, size, config, accelerator, default_num_workers(), progress=accelerator.is_main_process
        )
        metrics = test.evaluate(net.to(device))
        print(format_top(metrics, test.protocol))
    if accelerator.is_main_process:
        record = {**metrics, "protocol": test.protocol, "checkpoint": str(arguments.checkpoint), "images": len(images)}
        write_json(arguments.json, record)
        if out is not None:
            write_json_atomically(out, record, indent=2)
    return 0
