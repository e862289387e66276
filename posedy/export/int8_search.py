"""Choice of the layers of an int8 graph that stay in float32, by the keypoints of calibration crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.export.graph_file import GraphInfo
from posedy.export.onnx_int8 import StaticQuantizer
from posedy.export.runtimes import Array, GraphRunner, make_runner
from posedy.geometry import DEFAULT_PADDING
from posedy.models.pose_net import normalize_array, predict_outputs

MOVED_DISTANCE = 0.05
"""A keypoint is moved if it is farther than this from the float network's, relative to the size of the person."""
_MIN_SCORE = 0.2
_TARGET_MOVED, _TARGET_DISTANCE = 0.01, 0.0075
"""The search ends at this agreement: `light` then has 1 and `balanced` 5 layers in float32, of 77."""
_MAX_MOVED, _MAX_DISTANCE = 0.05, 0.025
_SEARCH_CROPS = 32
"""Number of crops on which layers are compared, of those of the calibration."""
_FLOAT_COUNTS = (1, 2, 3, 5, 8, 12, 16, 24, 32)
"""Numbers of layers in float32 that the search tries, at most half of all."""

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Crops for an int8 export.

    Attributes:
        crops: (N, H, W, 3) uint8 RGB, from which ranges of activations are measured and layers are chosen.
        check_crops: (M, H, W, 3) of other images, on which keypoints are compared with those of the float network.
        check: compares the float graph and the int8 graph in another respect, such as AP, and returns a sentence
            about it; it raises ValueError if the int8 graph is too inaccurate. None compares keypoints only.
        allow_drop: whether an inaccurate graph is written, too.
    """

    crops: NDArray[np.uint8]
    check_crops: NDArray[np.uint8]
    check: Callable[[GraphRunner, GraphRunner, GraphInfo], str] | None = None
    allow_drop: bool = False


@dataclass(frozen=True)
class Agreement:
    """The keypoints of a graph compared with those of the float graph, of those with scores of at least 0.2.

    Attributes:
        moved_fraction: fraction of keypoints at a distance of more than `MOVED_DISTANCE`.
        mean_distance: mean distance, relative to the size of the person.
        score_difference: mean absolute difference of the scores.
    """

    moved_fraction: float
    mean_distance: float
    score_difference: float

    def __str__(self) -> str:
        """Formats the agreement as one line."""
        return (
            f"{self.moved_fraction:.1%} of the keypoints moved by more than {MOVED_DISTANCE:.0%} of the person's size, "
            f"on average by {self.mean_distance:.2%}; scores differ by {self.score_difference:.3f}"
        )

    @property
    def is_close(self) -> bool:
        """Whether the search for layers in float32 can end."""
        return self.moved_fraction <= _TARGET_MOVED and self.mean_distance <= _TARGET_DISTANCE


def check_agreement(agreement: Agreement) -> None:
    """Raises ValueError if an int8 graph's keypoints differ too much from those of the float graph.

    Raises:
        ValueError: if too many keypoints moved, or too far.
    """
    if not (agreement.moved_fraction <= _MAX_MOVED and agreement.mean_distance <= _MAX_DISTANCE):
        raise ValueError(
            f"the int8 network is too inaccurate, no file was written: {agreement} (allowed: {_MAX_MOVED:.0%} and "
            f"{_MAX_DISTANCE:.1%}). Calibrate on more images like those of the application, use weights in int8 only, "
            "or allow the drop"
        )


def quantize_statically(
    model: Any, info: GraphInfo, crops: NDArray[np.uint8], log: Report = print
) -> tuple[Any, tuple[str, ...]]:
    """Quantizes a graph on calibration crops; layers stay in float32 until its keypoints agree with the float graph's.

    Layers are tried in the order of the error of the keypoints of the graph with only this layer in int8.

    Args:
        model: an onnx.ModelProto with float32 weights; it is not changed.
        info: its metadata.
        crops: (N, H, W, 3) uint8 RGB.
        log: receives progress messages.

    Returns:
        The quantized graph, and the names of its layers in float32, the most sensitive first.
    """
    quantizer = StaticQuantizer(model)
    names = [layer.name for layer in quantizer.layers]
    log(f"int8: measuring the activations of {len(names)} layers on {len(crops)} crops")
    quantizer.observe(crop_inputs(crops[i : i + 1], info) for i in range(len(crops)))
    selected = crops[np.unique(np.linspace(0, len(crops) - 1, _SEARCH_CROPS).astype(int))]
    expected = predict(_run(quantizer.model, info), selected, info)

    def compare(layers: Sequence[str]) -> tuple[Any, Agreement]:
        quantized = quantizer.quantize(layers)
        return quantized, compare_keypoints(expected, predict(_run(quantized, info), selected, info), info)

    best, agreement = compare(names)
    float_layers: tuple[str, ...] = ()
    if agreement.is_close or len(names) < 2:
        return best, float_layers
    log(f"int8: {agreement}; measuring the error of each layer")
    errors = {name: _error(compare([name])[1]) for name in names}
    ranking = sorted(names, key=lambda name: -errors[name])
    for count in _FLOAT_COUNTS:
        if count > len(names) // 2:
            break
        quantized, tried = compare([name for name in names if name not in ranking[:count]])
        if _error(tried) < _error(agreement):
            best, agreement, float_layers = quantized, tried, tuple(ranking[:count])
        if tried.is_close:
            break
    log(f"int8: with {len(float_layers)} layers in float32, {agreement}")
    return best, float_layers


def crop_inputs(crops: NDArray[np.uint8], info: GraphInfo) -> Array:
    """Returns crops as the input of a graph: unchanged if the graph decodes, otherwise normalized."""
    return crops if info.decodes else normalize_array(crops).numpy()


def predict(
    runner: GraphRunner, crops: NDArray[np.uint8], info: GraphInfo
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns keypoints (N, K, 2) in crop pixels and scores (N, K) of a graph, without the flip test of the caller."""
    if info.decodes:
        keypoints, scores = runner(crops)
        return keypoints, scores
    codec = info.codec
    outputs = predict_outputs(
        lambda images: [torch.from_numpy(output) for output in runner(images.numpy())], crops, codec
    )
    decoded, peaks = codec.decode(outputs)
    return decoded.numpy(), peaks.numpy()


def compare_keypoints(
    expected: tuple[NDArray[np.float32], NDArray[np.float32]],
    predicted: tuple[NDArray[np.float32], NDArray[np.float32]],
    info: GraphInfo,
) -> Agreement:
    """Compares keypoints and scores with those of the float graph, where its scores are at least 0.2, if any are."""
    width, height = info.input_size
    distances = np.linalg.norm(predicted[0] - expected[0], axis=-1) / (np.sqrt(width * height) / DEFAULT_PADDING)
    confident = expected[1] >= _MIN_SCORE
    chosen = distances[confident] if confident.any() else distances.ravel()
    difference = float(np.abs(predicted[1] - expected[1]).mean())
    return Agreement(float((chosen > MOVED_DISTANCE).mean()), float(chosen.mean()), difference)


def _error(agreement: Agreement) -> float:
    """Orders agreements: distances, with scores for differences that move no keypoint."""
    return agreement.mean_distance + agreement.moved_fraction + 0.1 * agreement.score_difference


def _run(model: Any, info: GraphInfo) -> GraphRunner:
    return make_runner(model.SerializeToString(), info.batch, "onnxruntime")
