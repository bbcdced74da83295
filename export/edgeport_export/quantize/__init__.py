"""Quantized graphs from the simplified float graph. Which variants an export makes is decided in `variants`."""
