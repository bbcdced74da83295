"""Classify frames that are arrays already, such as those of OpenCV, whose channels are in BGR order."""

from pathlib import Path

import numpy as np

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier

bundle = Path("frames")
export(ExportConfig(architecture="resnet20", output=bundle, quantize=(), force=True))
frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)  # here: cv2.VideoCapture(0).read()
with Classifier.load(bundle) as classifier:
    for frame in frames:
        best = classifier.predict(frame, top_k=1, color="bgr")[0]
        print(best.index, f"{best.score:.3f}")
