"""Weights of an ONNX graph stored in float16.

A Cast to float32 follows each, so that everything is computed in float32: half the size of the file, and any runtime
takes it.
"""

from typing import Any

import numpy as np

_SMALLEST = 256
"""Tensors with fewer values stay as they are: biases and constants gain nothing."""


def halve_weights(model: Any) -> None:
    """Stores the large float32 tensors of an onnx.ModelProto in float16, in place.

    Raises:
        ValueError: if a weight is too large for float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(f"{tensor.name} has values that float16 does not hold: export without half")
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    halved = {cast.output[0] for cast in casts}
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    # types that the exporter noted of what are no longer initialisers are still true of the casts' outputs
    kept = [value for value in graph.value_info if value.name not in halved]
    del graph.value_info[:]
    graph.value_info.extend(kept)
