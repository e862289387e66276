"""ImageNet weights for a MobileNetV2 of a width that has none, from those of a wider one.

python tools/narrow_weights.py mobilenet_v2.pth --photos data/real/train/images --out mobilenetv2_050.safetensors

The file is for `model.weights=`; posedy/weights/narrowing.py says how it is made.
"""

import argparse
import sys
from pathlib import Path

import posedy  # noqa: F401  # isort: skip  (before torch, whose threads it sets up)
import numpy as np
import torch
from safetensors.torch import save_file

from posedy.data.photos import read_photo
from posedy.files import replacing
from posedy.geometry import image_to_crop_matrix, padded_region, warp_crop
from posedy.inference.photo_paths import photo_paths
from posedy.models.zoo import create_model
from posedy.prediction import normalise_crops
from posedy.weights.narrowing import narrow
from posedy.weights.pretrained import to_torchvision
from posedy.weights.starting_weights import start_from

_SIZE = (160, 192)
_MIDDLE = 0.75  # of a photo, so that crops have little border


def read_crops(photos: list[Path], input_size: tuple[int, int]) -> torch.Tensor:
    """The middle of each photo, normalised (N, 3, H, W)."""
    width, height = input_size
    crops = []
    for photo in photos:
        image = read_photo(photo)
        box = [0, 0, image.shape[1], image.shape[0]]
        matrix = image_to_crop_matrix(*padded_region(box, width / height, _MIDDLE), input_size)
        crops.append(warp_crop(image, matrix, input_size))
    return normalise_crops(torch.from_numpy(np.stack(crops)))


def run(words: list[str] | None = None) -> None:
    """Parses, reads, narrows, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="ImageNet weights of the wide network, torchvision's or timm's")
    parser.add_argument(
        "--wide", default="mobilenetv2_100", help="the backbone that they are of (default: %(default)s)"
    )
    parser.add_argument("--backbone", default="mobilenetv2_050", help="the narrow one (default: %(default)s)")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos to fit on")
    parser.add_argument("--count", type=int, default=224, help="how many of them (default: %(default)s; 45 MB each)")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors")
    arguments = parser.parse_args(words)
    if arguments.count < 1:
        raise ValueError(f"--count is at least 1, got {arguments.count}")
    photos = photo_paths([str(arguments.photos)])
    chosen = photos[:: max(1, len(photos) // arguments.count)][: arguments.count]
    wide, slim = (create_model(f"{name}-bneck").eval() for name in (arguments.wide, arguments.backbone))
    print(start_from(wide, arguments.weights))
    lost = narrow(wide.backbone, slim.backbone, read_crops(chosen, _SIZE))
    with replacing(arguments.out) as temporary:
        save_file(to_torchvision(slim.backbone), temporary)
    print(f"wrote {arguments.out}: {lost:.1%} of the last layer's variance on {len(chosen)} photos is lost")


if __name__ == "__main__":
    try:
        run()
    except (OSError, ValueError) as error:
        sys.exit(f"narrow_weights: {error}")
