"""Networks for inference: fused, exported to ONNX files, run by other runtimes."""
