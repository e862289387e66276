"""Prints the measurements of all kernels as JSON; test_kernels.py runs it, with Triton's interpreter on CPUs."""

import json

import batch_norm_errors
import block_differences
import depthwise_errors
import torch

print(
    json.dumps(
        {
            "depthwise": depthwise_errors.measure(),
            "batch norm": batch_norm_errors.measure(),
            "nan": [batch_norm_errors.keeps_nan()],
            # a block on the CPU cannot use kernels that are compiled for a GPU
            "blocks": None if torch.cuda.is_available() else block_differences.measure(),
        }
    )
)
