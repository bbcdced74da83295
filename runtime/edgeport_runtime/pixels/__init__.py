"""Image files to arrays of pixels to the network's input. Nothing here knows of models, bundles or ONNX Runtime."""
