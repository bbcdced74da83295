"""Run by a device's own Python, with the runtime on its path: what `Classifier` and `infer.py` give there.

python device_reference.py BUNDLE VARIANT [VARIANT ...]
"""

import json
import sys
from pathlib import Path

from edgeport_runtime import Classifier
from edgeport_runtime.engine.machine import instruction_sets
from edgeport_runtime.pixels.preprocess import preprocess

bundle, variants = Path(sys.argv[1]), sys.argv[2:]
sys.path.insert(0, str(bundle))
import infer  # noqa: E402

told = {"sets": sorted(instruction_sets() or ()), "variants": {}}
for variant in variants:
    session = infer.load(variant)
    with Classifier.load(bundle, variant=variant, device="cpu") as classifier:
        images = [bundle / image.file for image in classifier.manifest.golden.images]
        inputs = [preprocess(image, classifier.contract.preprocess)[None] for image in images]
        told["variants"][variant] = {
            "outputs": [classifier.outputs(x)[0].tolist() for x in inputs],
            "classifier": [classifier.predict(image, 1)[0].index for image in images],
            "infer": [infer.predict(session, image, 1)[0]["index"] for image in images],
        }
json.dump(told, sys.stdout)
