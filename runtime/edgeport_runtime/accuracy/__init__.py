"""Checks whether a classifier is right, by golden images and labelled data. `tuning` measures how fast it is."""
