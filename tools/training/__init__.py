"""What tools/train.py is made of: labelled images, the loop, metrics, and what is written."""
