"""From a float graph to smaller and faster ones: int8, float16, and weights alone in int8."""
