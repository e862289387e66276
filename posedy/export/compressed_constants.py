"""Kernels in float16 or int8 that OpenVINO reads compressed, as inputs of its graph.

OpenVINO converts constants in float16 and int8 to float32 when it compiles a graph, unless they are weights of certain
operators. The K kernels of a dynamic convolution are aggregated for each image,

    W = sum over k of pi_k * float32(W_k)    or, in int8 with divisors d_k,    sum over k of pi_k * float32(W_k) / d_k,

which takes as long as reading them takes from memory. As inputs they stay compressed, and OpenVINO computes the sum in
one pass.
"""

from typing import Any

import numpy as np

from posedy.export.onnx_layers import MIN_SUMMED_VALUES

Constants = dict[str, Any]
"""Values of graph inputs, `openvino.Tensor` by name."""

_COMPRESSED_TYPES = ("f16", "i8")


def lift_compressed_kernels(graph: Any) -> tuple[Any, Constants]:
    """Turns constants in float16 or int8 that are weighted by attention into inputs.

    Args:
        graph: an `openvino.Model`; it is not changed.

    Returns:
        The graph, a copy with further inputs if there are such constants, and the values of these inputs.
    """
    if not any(map(_is_compressed_kernel, graph.get_ops())):
        return graph, {}
    import openvino

    graph = graph.clone()
    values: Constants = {}
    parameters = []
    for conversion in filter(_is_compressed_kernel, graph.get_ops()):
        constant = conversion.input_value(0).get_node()
        parameter = openvino.opset13.parameter(constant.output(0).shape, constant.get_element_type())
        name = f"kernel_{len(values)}"
        parameter.output(0).set_names({name})
        conversion.input(0).replace_source_output(parameter.output(0))
        _multiply_by_scale(conversion)
        values[name] = openvino.Tensor(np.array(constant.data))
        parameters.append(parameter)
    graph.add_parameters(parameters)
    graph.validate_nodes_and_infer_types()
    return graph, values


def _is_compressed_kernel(node: Any) -> bool:
    """Returns whether a node converts a large compressed constant that is multiplied by a computed value.

    The divisors of int8 values may come before.
    """
    if node.get_type_name() != "Convert":
        return False
    constant = node.input_value(0).get_node()
    if constant.get_type_name() != "Constant" or constant.get_element_type().get_type_name() not in _COMPRESSED_TYPES:
        return False
    if int(np.prod(constant.output(0).shape)) < MIN_SUMMED_VALUES:
        return False
    product, other = _product(node)
    if other is not None and _is_constant(other):
        product, other = _product(product)
    return other is not None and not _is_constant(other) and product.get_type_name() == "Multiply"


def _is_constant(node: Any) -> bool:
    """Returns whether a node is a constant, reshaped or not, such as the scales of a constant kernel."""
    while node.get_type_name() in ("Reshape", "Unsqueeze", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant"


def _product(node: Any) -> tuple[Any, Any]:
    """Returns the only node that reads a node, if it is a product or a quotient, and the product's other factor."""
    targets = list(node.output(0).get_target_inputs())
    if len(targets) != 1 or targets[0].get_node().get_type_name() not in ("Multiply", "Divide"):
        return None, None
    product = targets[0].get_node()
    return product, product.input_value(1 - targets[0].get_index()).get_node()


def _multiply_by_scale(conversion: Any) -> None:
    """Replaces the quotient of int8 values and divisors, of `store_weights`, by a product, which is faster."""
    from openvino import opset13

    product, scale = _product(conversion)
    if product.get_type_name() == "Divide":
        product.output(0).replace(opset13.multiply(conversion, opset13.constant(1 / scale.data)).output(0))
