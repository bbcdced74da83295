"""From raw outputs to probabilities, decisions and metrics, in numpy. Nothing here reads a file or runs a model."""
