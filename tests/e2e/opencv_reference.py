"""Run with one version of OpenCV on the path: what its network reader gives for the inputs in an `.npy`, as JSON.

python opencv_reference.py INPUTS MODEL
"""

import json
import sys

import cv2
import numpy as np

network = cv2.dnn.readNetFromONNX(sys.argv[2])
outputs = []
for image in np.load(sys.argv[1]):
    network.setInput(image[np.newaxis])
    outputs.append(network.forward().ravel().tolist())
json.dump([cv2.__version__, outputs], sys.stdout)
