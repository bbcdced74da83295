"""What a bundle's folder contains besides the models, and how it is put in place. Nothing here changes a network."""
