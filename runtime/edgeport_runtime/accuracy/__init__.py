"""Is a classifier right: golden images and labelled data. How fast it is belongs to `tuning`."""
