"""Kernels in Triton for training on GPUs; only `availability` can be imported where Triton is not."""
