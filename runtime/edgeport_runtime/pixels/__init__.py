"""From image files to pixels to the network's input. Nothing here knows about models, bundles or ONNX Runtime."""
