"""Makes quantized graphs from the simplified float graph. `variants` decides which of them an export makes."""
