"""Triton kernels for training on GPUs; only `availability` can be imported without Triton."""
