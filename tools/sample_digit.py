"""Write a digit that the shipped weights were not trained on, from scikit-learn's, as a PNG; print what it shows.

python tools/sample_digit.py build/digit.png
"""

import argparse
from pathlib import Path

from PIL import Image

from training.data import digits

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("path", type=Path, metavar="PNG", help="File to write; its folder is created.")
parser.add_argument("--number", type=int, default=0, metavar="N", help="Which of the 360, counted from 0 (default 0).")
args = parser.parse_args()
found = digits()
if not 0 <= args.number < len(found["y_test"]):
    parser.error(f"--number is {args.number}; it must be from 0 to {len(found['y_test']) - 1}")
args.path.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(found["x_test"][args.number]).save(args.path)
print(f"{args.path} shows the digit {found['y_test'][args.number]}")
