"""ONNX Runtime and this machine: sessions, devices, threads. Nothing here knows what an output means."""
