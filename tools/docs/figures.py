"""Draws the figures of docs/explanation/pipeline.md from an example image of the package.

python -m tools.docs.figures docs/images     # pipeline.jpg, decoding.png
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from posedy.codecs import create_codec
from posedy.files import write_bytes_atomically
from posedy.geometry import FloatArray, apply_affine, image_to_crop_matrix, invert_affine, padded_region, warp_crop
from posedy.images import read_image
from posedy.inference.estimator import PoseEstimator
from posedy.models.pose_net import PoseNet, predict_outputs
from posedy.models.pretrained import load_checkpoint
from posedy.poses import Poses
from tools.lab.entry import run_and_exit

IMAGE = Path(__file__).parents[2] / "posedy/examples/tennis.jpg"
KEYPOINT = "left_ankle"
"""The keypoint whose heatmap is shown."""
_RADIUS = 4  # heatmap pixels around the peak that are shown
_CODECS = {"msra": ("o", "#d62728"), "unbiased": ("x", "#1f77b4")}  # marker and color


@dataclass(frozen=True)
class PersonPrediction:
    """All steps of the prediction of one person, without the flip test.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy in image pixels.
        region: the center (2,) and the size (2,) of the padded region in image pixels.
        crop: (h, w, 3) uint8 RGB.
        image_to_crop: (2, 3).
        heatmaps: (1, K, h / 4, w / 4) float32.
        net: the network.
        poses: the pose in the image.
    """

    image: NDArray[np.uint8]
    box: FloatArray
    region: tuple[FloatArray, FloatArray]
    crop: NDArray[np.uint8]
    image_to_crop: FloatArray
    heatmaps: torch.Tensor
    net: PoseNet
    poses: Poses


def predict_person(path: Path) -> PersonPrediction:
    """Predicts the person with the highest box score in an image, step by step, with the default network."""
    image = read_image(path)
    estimator = PoseEstimator(device="cpu", runtime="torch", flip=False)
    poses = estimator(image, channels="rgb")
    if not len(poses):
        raise ValueError(f"{path}: expected a person, the detector found none")
    poses = poses[:1]
    net = load_checkpoint("balanced")
    width, height = net.codec.input_size
    center, size = padded_region(poses.boxes[0], width / height)
    image_to_crop = image_to_crop_matrix(center, size, (width, height))
    crop = warp_crop(image, image_to_crop, (width, height))
    with torch.inference_mode():
        outputs = predict_outputs(net, crop[None], net.codec)
    decoded = net.codec.decode(outputs)[0][0].numpy()
    in_image = apply_affine(invert_affine(image_to_crop), decoded)
    if not np.allclose(in_image, poses.keypoints[0], atol=0.5):
        raise ValueError("expected the estimator's keypoints from the steps of the figure")
    return PersonPrediction(image, poses.boxes[0], (center, size), crop, image_to_crop, outputs["heatmaps"], net, poses)


def draw_pipeline(person: PersonPrediction) -> Figure:
    """Draws the box, the crop, the heatmaps and the pose of a person, side by side."""
    height, width = person.image.shape[:2]
    aspect, crop_aspect = width / height, person.crop.shape[1] / person.crop.shape[0]
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    ratios = [aspect, crop_aspect, crop_aspect, aspect]
    first, second, third, last = figure.subplots(1, 4, width_ratios=ratios)
    _show(first, person.image, "1. The detector's box, padded to 3:4 and by 1.25")
    x1, y1, x2, y2 = person.box
    first.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", linewidth=2))
    corner, size = person.region[0] - person.region[1] / 2, person.region[1]
    first.add_patch(Rectangle(tuple(corner), *size, fill=False, color="white", linewidth=2, linestyle=":"))
    first.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    _show(second, person.crop, f"2. The {person.crop.shape[0]}x{person.crop.shape[1]} crop")
    heat = person.heatmaps[0].amax(dim=0).numpy()
    _show(third, person.crop, f"3. {person.heatmaps.shape[1]} heatmaps")
    corners = np.array([[-0.5, -0.5], [heat.shape[1] - 0.5, heat.shape[0] - 0.5]])
    (left, top), (right, bottom) = apply_affine(person.net.codec.heatmap_to_crop_matrix().numpy(), corners)
    extent = (left, right, bottom, top)
    third.imshow(heat, extent=extent, cmap="inferno", alpha=0.75, interpolation="nearest")
    third.set(xlim=(-0.5, person.crop.shape[1] - 0.5), ylim=(person.crop.shape[0] - 0.5, -0.5))
    _show(last, person.poses.draw(person.image), "4. The decoded keypoints in the image")
    return figure


def draw_decoding(person: PersonPrediction, name: str = KEYPOINT) -> Figure:
    """Draws the heatmap around the peak of a keypoint, and where the two codecs decode it."""
    skeleton = person.poses.skeleton
    index = skeleton.keypoints.index(name)
    heatmap = person.heatmaps[0, index].numpy()
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(heatmap, cmap="gray", interpolation="nearest")
    figure.colorbar(shown, label="heatmap")
    axes.plot(column, row, "+", color="#2ca02c", markersize=14, markeredgewidth=2, label="highest pixel")
    for codec_name, (marker, color) in _CODECS.items():
        codec = create_codec(codec_name, person.net.codec.input_size, None)
        decoded = codec.decode({"heatmaps": person.heatmaps})[0][0, index]
        matrix = codec.heatmap_to_crop_matrix().numpy()
        x, y = apply_affine(invert_affine(matrix), decoded[None].numpy())[0]
        axes.plot(x, y, marker, color=color, markersize=9, markeredgewidth=2, label=f'codec "{codec_name}"')
    axes.set(xlim=(column - _RADIUS - 0.5, column + _RADIUS + 0.5), ylim=(row + _RADIUS + 0.5, row - _RADIUS - 0.5))
    axes.set(xlabel="x in heatmap pixels", ylabel="y in heatmap pixels", title=name)
    axes.legend(loc="lower left")
    return figure


def _show(axes: Axes, image: NDArray[np.uint8], title: str) -> None:
    axes.imshow(image)
    axes.set_title(title)
    axes.set_axis_off()


def _encode(figure: Figure, **options: object) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, dpi=100, **options)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.docs.figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder to write pipeline.jpg and decoding.png to")
    folder = parser.parse_args(arguments).folder
    person = predict_person(IMAGE)
    quality = {"quality": 88, "optimize": True}
    for name, data in {
        "pipeline.jpg": _encode(draw_pipeline(person), format="jpg", pil_kwargs=quality),
        "decoding.png": _encode(draw_decoding(person), format="png"),
    }.items():
        write_bytes_atomically(folder / name, data)
        print(f"wrote {folder / name}: {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    run_and_exit(main, "figures")
