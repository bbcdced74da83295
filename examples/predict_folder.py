"""Classify the images of a folder with all processors, and go on after one that is damaged."""

from pathlib import Path

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier

bundle = Path("digits")
if not bundle.exists():
    export(ExportConfig(architecture="lenet5", weights="digits", output=bundle))
images = sorted((bundle / "golden").glob("*.png"))
with Classifier.load(bundle) as classifier:
    for result in classifier.stream(images, top_k=1):
        if result.error is not None:
            print(f"{result.item}: {result.error}")
            continue
        best = result.predictions[0]
        print(f"{result.item}: {best.label} {best.score:.3f}")
