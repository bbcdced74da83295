"""From a path to a loaded model: which variant, which device, what was tuned. No images and no predictions."""
