"""Print the path of a photo that scikit-learn ships."""

from pathlib import Path

import sklearn.datasets

print(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg")
