"""What a bundle says: its manifest, its contract, and its files on disk. Nothing here runs a model."""
