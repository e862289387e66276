"""The network that is tested: what its file records replaces the configuration's network."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from posedy.codecs import create_codec
from posedy.config import Config
from posedy.models.pose_net import PoseNet
from posedy.models.registry import is_dynamic
from posedy.prediction import GraphModel, Model, load_model


def load_tested_network(checkpoint: Path, device: str) -> Model:
    """Loads a network, or a graph exported from it, without fusing layers, as training evaluates it.

    Raises:
        OSError, ValueError: if the file is missing, has the wrong format or decodes keypoints, or the device is absent.
    """
    model = load_model(checkpoint, device, "auto" if checkpoint.suffix.lower() == ".onnx" else "torch", fused=False)
    if isinstance(model, GraphModel) and model.info.decodes:
        raise ValueError(f"{checkpoint}: expected a graph without decoding, got keypoints: export without --decode")
    return model


def with_network(
    config: Config, net: PoseNet | Model, checkpoint: Path, explicit: Collection[str] = ()
) -> tuple[Config, str]:
    """Replaces the network of a configuration by that of a file, which records all that decoding needs.

    Args:
        config: the configuration; its `model` section may be that of another network.
        net: the network of the file.
        checkpoint: the file, for messages.
        explicit: keys of the `model` section, such as "codec" or "options.depth", that were set for this test: they
            must be those of the file, except `input_size`, which replaces the file's.

    Returns:
        The configuration with the file's network, and a line that says what of the configuration is not used, empty if
        nothing differs.

    Raises:
        ValueError: if an explicit value is not the file's, or a graph does not have the explicit input size.
    """
    model = config.model
    differences = _differences(config, net)
    for key in explicit:
        name = key.removeprefix("options.")
        if key == "input_size" and isinstance(net, GraphModel) and "input_size" in differences:
            raise ValueError(
                f"{checkpoint}: expected input size {model.input_size} (model.input_size), got a graph of "
                f"{net.input_size}: leave model.input_size out, or export with this size"
            )
        if key != "input_size" and name in differences:
            expected, got = differences[name]
            raise ValueError(
                f"{checkpoint}: expected {name}={expected} (model.{key}), got {got}: leave it out, a test takes it "
                "from the file"
            )
    input_size = model.input_size if "input_size" in explicit else net.input_size
    options = {name: value for name, value in net.options.items() if name not in (*_OWN_KEYS, "num_keypoints")}
    recorded = {name: net.options[name] for name in _OWN_KEYS if name in net.options}
    section = model.model_copy(update={**recorded, "name": net.name, "input_size": input_size, "options": options})
    unused = {name: values for name, values in differences.items() if name not in explicit}
    text = ", ".join(f"{name} {got} (configuration: {expected})" for name, (expected, got) in unused.items())
    return config.model_copy(update={"model": section}), f"network of {checkpoint}: {text}" if text else ""


_OWN_KEYS = ("num_kernels", "output", "codec", "sigma")
"""What a network's file records among its options and a configuration has as keys of its own."""


def _differences(config: Config, net: PoseNet | Model) -> dict[str, tuple[Any, Any]]:
    """Returns the values of the configuration and of the network for each setting that differs."""
    model = config.model
    expected = {"name": model.name, "input_size": model.input_size, "num_kernels": model.num_kernels}
    expected |= {"output": model.output, "codec": model.codec, **model.options}
    recorded = {name: value for name, value in net.options.items() if name != "num_keypoints"}
    recorded |= {"name": net.name, "input_size": net.input_size}
    if not is_dynamic(net.name):
        recorded["num_kernels"] = model.num_kernels  # old files of static networks record any number; it is unused
    # an omitted sigma is the default for the configured input size
    expected["sigma"] = create_codec(model.codec, model.input_size, model.sigma).target_sigma
    recorded["sigma"] = dataclasses.replace(net.codec, input_size=model.input_size).target_sigma
    names = dict.fromkeys([*expected, *recorded])
    pairs = {name: (expected.get(name, "default"), recorded.get(name, "default")) for name in names}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}
