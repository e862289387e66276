"""Networks for inference: fusing, export to ONNX and other runtimes."""
