"""Creation of backbones and pose networks by name; `registry.py` lists the names."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, get_args

from torch import nn

from posedy.codecs import create_codec
from posedy.models.blocks import (
    BNECK_LAYERS,
    Backbone,
    ConvFactory,
    DynamicConvFactory,
    Padding,
    make_classifier,
    static_conv,
)
from posedy.models.classifier import Classifier
from posedy.models.dynamic_conv import DEFAULT_NUM_KERNELS, DEFAULT_TEMPERATURE, check_temperature
from posedy.models.network_file import read_weights, recorded_options, recorded_skeleton
from posedy.models.pose_net import HeatmapOutput, PoseNet, last_layer
from posedy.models.registry import (
    DYNAMIC_OPTIONS,
    backbone_factory,
    check_is_string,
    check_name,
    default_codec,
    head_codec,
    head_factory,
    is_dynamic,
    list_backbones,
    list_heads,
    list_models,
    list_options,
    list_own_options,
    list_presets,
    options_of,
    split_name,
    takes_conv,
    takes_input_size,
    weights_path,
)
from posedy.registration import nearest_name
from posedy.skeleton import COCO17, Skeleton


def create_backbone(
    name: str,
    num_kernels: int = DEFAULT_NUM_KERNELS,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    num_classes: int | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> nn.Module:
    """Creates a backbone with random weights: (N, in_channels, H, W) -> (N, out_channels, H / 32, W / 32).

    Args:
        name: one of `list_backbones()`, or `[dy_]timm/NAME`.
        num_kernels: K of each dynamic convolution; static networks take the default only.
        temperature: tau of the attention's softmax.
        num_classes: number of classes of the ImageNet classifier at the end (paper, Table 8); None returns the last
            feature map.
        dropout: probability of dropout before the last layer of the classifier.
        options: options of the architecture, see `create_model`; `list_options(name)` lists them.

    Raises:
        ValueError: if the name or an option is unknown or an argument is invalid.
    """
    check_name(name, list_backbones())
    _check_options(name, options)
    _check_num_kernels(name, num_kernels)
    conv, factory = _conv_factory(name, num_kernels, temperature, options), backbone_factory(name)
    if num_classes is None:
        return _create_part(factory, (), conv, options)
    _check_at_least_one(num_classes=num_classes)
    if "num_classes" in options_of(factory):
        return _create_part(factory, (), conv, options, {"num_classes": num_classes, "dropout": dropout})
    backbone = _create_part(factory, (), conv, options)
    if not isinstance(backbone, Backbone):
        raise ValueError(f"{name}: a classifier needs a subclass of posedy.Backbone, got {type(backbone).__name__}")
    backbone.set_classifier(make_classifier(backbone.out_channels, num_classes, dropout))
    return backbone


def create_classifier(
    name: str,
    classes: Sequence[str],
    *,
    num_kernels: int = DEFAULT_NUM_KERNELS,
    temperature: float = DEFAULT_TEMPERATURE,
    dropout: float = 0.0,
    input_size: tuple[int, int] = (224, 224),
    **options: Any,
) -> Classifier:
    """Creates an image classifier with random weights.

    Args:
        name: one of `list_backbones()`, or `[dy_]timm/NAME`.
        classes: the names of the classes.
        num_kernels: K of each dynamic convolution; static networks take the default only.
        temperature: tau of the attention's softmax.
        dropout: probability of dropout before the last layer.
        input_size: default (width, height) of the images.
        options: options of the architecture, see `create_model`; `list_options(name)` lists them.

    Raises:
        ValueError: if the name or an option is unknown or an argument is invalid.
    """
    backbone = create_backbone(
        name, num_kernels, temperature=temperature, num_classes=len(classes), dropout=dropout, **options
    )
    record = {"num_kernels": num_kernels, "dropout": dropout, **options}
    return Classifier(backbone, name=name, classes=classes, input_size=input_size, options=record)


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_keypoints: int | None = None,
    num_kernels: int | None = None,
    temperature: float | None = None,
    output: HeatmapOutput | None = None,
    codec: str | None = None,
    sigma: float | None = None,
    input_size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    model_class: type[PoseNet] = PoseNet,
    **options: Any,
) -> PoseNet:
    """Creates a pose network.

        net = posedy.create_model("balanced", pretrained=True)
        heatmaps = net(crops)  # (N, 3, 256, 192) normalized RGB -> (N, 17, 64, 48)

    Args:
        name: one of `list_models()`, `[dy_]timm/NAME-HEAD` with timm installed, or with `pretrained` a preset.
        pretrained: whether to load the weights in the package (`list_models(pretrained=True)`). Arguments that are None
            are then those of their file; with other keypoints the last layer is random.
        num_keypoints: K, the number of keypoints, for heatmap codecs one heatmap each; None is that of the skeleton, or
            17 without one.
        num_kernels: K of each dynamic convolution, None is 4; static networks take 4 only.
        temperature: tau of the attention's softmax; None is 30.
        output: "linear", the paper's, as is None; "softmax": each heatmap is a distribution over its pixels, for
            cross-entropy; or "sigmoid": each heatmap pixel is a probability, for binary cross-entropy. Codecs of
            several outputs take "linear" only.
        codec: one of `list_codecs()`; recorded with the network, so that its outputs are decoded by it. None is the
            codec of the head: "simcc" for the head `simcc`, "msra" for heads of heatmaps.
        sigma: standard deviation of the targets in heatmap pixels (for "simcc" in bins), recorded like the codec; None
            is 2 (6) for crops of 256 pixels in height, and in proportion.
        input_size: (width, height) of the crops, recorded like the codec; None is (192, 256). Heads of heatmaps support
            other sizes, too.
        skeleton: the skeleton of the keypoints; None is COCO's for 17 keypoints.
        model_class: the class of the network: `PoseNet`, or a subclass that overrides `forward`.
        options: options of the architecture; `list_options(name)` lists those of a network:
            in_channels: 3; 1 makes a grayscale network, which converts RGB crops.
            attention: "softmax", the paper's; "sigmoid", CondConv's (section 4.3), which has no temperature; or
                "normalized", a softmax of logits after a batch norm (`KernelAttention`).
            dynamic_layers: which of "expand", "depthwise" and "project", C1 to C3 of Table 5, are dynamic in a bneck.
            depth: multiplier of the number of blocks (MobileNetV2, Figure 6).
            se: False leaves out squeeze-and-excitation (MobileNetV3, Table 7).
            padding: "symmetric", or "tensorflow" for weights that were trained in TensorFlow (MobileNetV2).

    Returns:
        The network in training mode, or in evaluation mode if it is pretrained.

    Raises:
        ValueError: if the name or an option is unknown, an argument is invalid, or the package has no weights for the
            name.
    """
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained must be true or false, got {pretrained!r}; other arguments are given by name")
    check_is_string(name)
    if not (isinstance(model_class, type) and issubclass(model_class, PoseNet)):
        raise TypeError(f"model_class must be a subclass of posedy.PoseNet, got {model_class!r}")
    if pretrained:
        given = {
            "num_kernels": num_kernels,
            "temperature": temperature,
            "output": output,
            "codec": codec,
            "sigma": sigma,
        }
        return _create_pretrained(name, num_keypoints, skeleton, input_size, model_class, given, options)
    if name in list_presets():
        raise ValueError(f"{name!r} is a preset, the weights of {list_presets()[name]!r}: use pretrained=True")
    check_name(name, list_models())
    backbone_name, head_name = split_name(name)
    if not head_name:
        raise ValueError(f"{name} has no head; such as {backbone_name or name}-bneck, the heads are {list_heads()}")
    _check_options(name, options)
    if not isinstance(skeleton, Skeleton | None):
        raise TypeError(f"skeleton must be a posedy.Skeleton, got {skeleton!r}")
    if num_keypoints is None:
        num_keypoints = (skeleton or COCO17).num_keypoints
    num_kernels = DEFAULT_NUM_KERNELS if num_kernels is None else num_kernels
    temperature = DEFAULT_TEMPERATURE if temperature is None else temperature
    output = "linear" if output is None else output
    input_size = (192, 256) if input_size is None else input_size
    _check_at_least_one(num_keypoints=num_keypoints)
    _check_num_kernels(name, num_kernels)
    check_temperature(temperature)
    codec = default_codec(name) if codec is None else codec
    names = create_codec(codec, input_size, sigma).output_names  # raises if one of the arguments is invalid
    if model_class.forward is PoseNet.forward:
        _check_codec(head_name, codec, names)
    if output not in get_args(HeatmapOutput):
        raise ValueError(f"output must be one of {list(get_args(HeatmapOutput))}, got {output!r}")
    if output != "linear" and len(names) > 1:
        raise ValueError(f"output={output!r} is for heatmaps, the codec {codec!r} has {', '.join(names)}: leave it out")
    if skeleton is None and num_keypoints == COCO17.num_keypoints:
        skeleton = COCO17
    if skeleton is not None and skeleton.num_keypoints != num_keypoints:
        raise ValueError(f"the skeleton has {skeleton.num_keypoints} keypoints, num_keypoints is {num_keypoints}")
    of_backbone = {option: options[option] for option in list_options(backbone_name) if option in options}
    of_backbone["num_kernels"] = num_kernels if is_dynamic(backbone_name) else DEFAULT_NUM_KERNELS
    backbone = create_backbone(backbone_name, temperature=temperature, **of_backbone)
    factory = head_factory(head_name)
    channels = _input_channels(name, backbone, getattr(factory, "reads_pyramid", False))
    conv = _conv_factory(head_name, num_kernels, temperature, options)
    arguments = {"input_size": (input_size[0], input_size[1])} if takes_input_size(factory) else {}
    head = _create_part(factory, (channels, num_keypoints), conv, options, arguments)
    record: dict[str, Any] = {
        "num_keypoints": num_keypoints,
        "num_kernels": num_kernels,
        "output": output,
        "codec": codec,
        "sigma": sigma,
        **options,
    }
    return model_class(backbone, head, name=name, skeleton=skeleton, input_size=input_size, options=record)


def _create_pretrained(
    name: str,
    num_keypoints: int | None,
    skeleton: Skeleton | None,
    input_size: tuple[int, int] | None,
    model_class: type[PoseNet],
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> PoseNet:
    """Creates a network with the weights in the package; `given` are arguments that its file records, None if not."""
    record, tensors = read_weights(weights_path(name))
    name = record["name"]  # the file's name may have more, such as the size of the crops
    recorded = recorded_options(record)
    recorded_keypoints = recorded.pop("num_keypoints")
    temperatures = [float(tensor) for key, tensor in tensors.items() if key.endswith("attention.temperature")]
    if temperatures:
        recorded["temperature"] = temperatures[0]
    elif not is_dynamic(name):
        given = {**given, "temperature": None}  # networks without weights ignore it, too
        recorded["num_kernels"] = DEFAULT_NUM_KERNELS
    if skeleton is None and num_keypoints in (recorded_keypoints, None):
        num_keypoints, skeleton = recorded_keypoints, recorded_skeleton(record)
    _check_options(name, options)
    for option, value in ({key: value for key, value in given.items() if value is not None} | dict(options)).items():
        if value != recorded.get(option):
            raise ValueError(
                f"the pretrained {name} has {option}={recorded.get(option)!r}, got {value!r}: leave it out, or use "
                "pretrained=False"
            )
    net = create_model(
        name,
        num_keypoints=num_keypoints,
        skeleton=skeleton,
        input_size=tuple(record["input_size"]) if input_size is None else input_size,
        model_class=model_class,
        **recorded,
    )
    state = net.state_dict()
    fresh = {key for key, tensor in tensors.items() if key in state and state[key].shape != tensor.shape}
    before = recorded_skeleton(record)
    if skeleton is not None and before is not None and skeleton.keypoints != before.keypoints:
        fresh |= last_layer(net).keys()
    net.load_state_dict({key: state[key] if key in fresh else tensor for key, tensor in tensors.items()})
    return net.eval()


def _input_channels(name: str, backbone: nn.Module, reads_pyramid: bool) -> Any:
    """Returns the channels of the feature map, or maps, of a backbone that a head reads."""
    attribute = "feature_channels" if reads_pyramid else "out_channels"
    channels = getattr(backbone, attribute, None)
    if channels is None:
        raise ValueError(
            f"{name}: the head needs a backbone with {attribute}"
            + (", such as a subclass of posedy.Backbone" if reads_pyramid else "")
            + f"; {type(backbone).__name__} has none"
        )
    return channels


def _create_part(
    factory: Callable[..., nn.Module],
    arguments: tuple[Any, ...],
    conv: ConvFactory,
    options: Mapping[str, Any],
    named_arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Calls the factory of a backbone or a head with its arguments, and with the options that it accepts."""
    taken = dict(named_arguments or {})
    taken |= {name: value for name, value in options.items() if name in options_of(factory)}
    if takes_conv(factory):
        taken["conv"] = conv
    return factory(*arguments, **taken)


def _check_codec(head: str, codec: str, outputs: Sequence[str]) -> None:
    """Checks that a codec decodes the outputs of a head, which are those of the codec that the head declares."""
    declared = head_codec(head)
    if declared is None or declared == codec:
        return
    expected = create_codec(declared, (32, 32)).output_names
    if tuple(outputs) != tuple(expected):
        raise ValueError(
            f"the head {head!r} has the outputs {', '.join(expected)} of the codec {declared!r}, the codec {codec!r} "
            f"decodes {', '.join(outputs)}: use codec={declared!r}, or another head"
        )


def _conv_factory(name: str, num_kernels: int, temperature: float, options: Mapping[str, Any]) -> ConvFactory:
    """Returns the convolution factory of a backbone or a head, by its name."""
    if not is_dynamic(name):
        return static_conv
    return DynamicConvFactory(num_kernels, temperature, options.get("attention", "softmax"))


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    valid, own = list_options(name), list_own_options(name)
    for option, value in options.items():
        if option in DYNAMIC_OPTIONS and option not in valid:
            raise ValueError(f"{option!r} is an option of dynamic convolutions, and {name} has none with this option")
        if option not in valid:
            raise ValueError(
                f"unknown option {option!r} of {name}; the nearest is {nearest_name(option, valid)!r}, all are {valid}"
            )
        if option == "in_channels":
            _check_at_least_one(in_channels=value)
        if option not in own:
            continue
        if option == "se" and not isinstance(value, bool):
            raise ValueError(f"se must be true or false, got {value!r}")
        if option == "depth" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"depth must be a number, got {value!r}")
        if option == "padding" and value not in get_args(Padding):
            raise ValueError(f"padding must be one of {list(get_args(Padding))}, got {value!r}")
        if option == "dynamic_layers":
            _check_layers(value)


def _check_num_kernels(name: str, num_kernels: int) -> None:
    _check_at_least_one(num_kernels=num_kernels)
    if num_kernels != DEFAULT_NUM_KERNELS and not is_dynamic(name):
        raise ValueError(
            f"num_kernels={num_kernels} is for dynamic convolutions, {name} has none: leave it out, or use a network "
            "with a part whose name begins with dy_"
        )


def _check_layers(layers: Collection[str]) -> None:
    if isinstance(layers, str) or not isinstance(layers, Collection) or not layers:
        raise ValueError(f"dynamic_layers must be a list of some of {list(BNECK_LAYERS)}, got {layers!r}")
    for layer in layers:
        if layer not in BNECK_LAYERS:
            nearest = nearest_name(str(layer), BNECK_LAYERS)
            raise ValueError(f"unknown layer {layer!r} in dynamic_layers; the nearest is {nearest!r}")


def _check_at_least_one(**numbers: int) -> None:
    for what, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"{what} must be an integer, got {number!r}")
        if number < 1:
            raise ValueError(f"{what} must be at least 1, got {number}")
