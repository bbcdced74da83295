"""What is inside of an ``.onnx`` file: its layers and what they cost, and what would keep it from a target."""
