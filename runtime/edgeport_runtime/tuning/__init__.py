"""Measures how fast a bundle runs on this machine, and what runs fastest. `accuracy` checks whether it is right."""
