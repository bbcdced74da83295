"""How fast a bundle runs on this machine, and what runs fastest. Whether it is right belongs to `accuracy`."""
