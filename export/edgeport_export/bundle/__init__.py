"""What the bundle's folder holds besides the models, and how it gets to its place. Nothing here changes a network."""
