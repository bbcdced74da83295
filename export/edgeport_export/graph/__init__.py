"""From PyTorch's trace to the simplified ONNX graph, and questions about graphs. Quantization belongs to `quantize`."""
