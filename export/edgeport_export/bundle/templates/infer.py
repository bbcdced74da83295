#!/usr/bin/env python3
"""Classify images with the model in this folder. It needs only numpy, Pillow and ONNX Runtime.

    python infer.py IMAGE [IMAGE ...] [--variant NAME] [--top-k K] [--json]

    import infer
    session = infer.load()
    infer.predict(session, "photo.jpg")  # or a PIL image, or a uint8 array (height, width, channels), RGB

An IMAGE is an image file, or such an array in a file of NumPy's, .npy.

EdgePort wrote this file when it exported the model. It is yours to change and to copy.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import struct
import sys
import warnings
from pathlib import Path

try:
    import numpy as np
    from PIL import Image, UnidentifiedImageError
except ModuleNotFoundError as error:
    if __name__ == "__main__":
        sys.exit(f"error: {error.name} is not installed: pip install numpy pillow onnxruntime")
    raise

# ONNX Runtime collects usage data unless this is set before its first import. A value of your own is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# BEGIN CONSTANTS
# Model files by variant, with their SHA-256. The first is the default: exact, and right on every processor.
FILES = {"fp32": {"model.fp32.onnx": ""}}
UNPACKED = []  # variants whose weights are stored in int8 and turned into floats once, when they are loaded
TASK = "multiclass"  # "multiclass": one of the classes; "binary": the second of two, or not; "multilabel": any of them
LABELS = ["zero", "one"]  # None: not known
THRESHOLDS = None  # a class is decided if its probability is at least this; None: the most probable one always is
OUTPUT = "logits"  # what the graph gives: "logits" or "probabilities"
BATCH = None  # images the graph takes at once; None: any number
COLOR = "rgb"  # order of the channels: "rgb", "bgr" or "grey"; with alpha "rgba" or "la"
RESIZE = "shorter"  # "shorter" side to RESIZE_SIZE, both sides "exact", "pad" to fit into it, or "none"
RESIZE_SIZE = 256  # a side, or [height, width]
INTERPOLATION = "bilinear"  # a filter of Pillow: "bilinear", "bicubic", "nearest", "lanczos", "box" or "hamming"
IMAGE_SIZE = 224  # cut from the centre: a side, or [height, width]
PAD_COLOR = None  # of "pad": a value from 0 to 255 per channel
SCALE = "unit"  # "unit": pixels are divided by 255; "byte": they stay 0 to 255
MEAN = [0.485, 0.456, 0.406]  # subtracted after that
STD = [0.229, 0.224, 0.225]  # divides after that
BITS = 16  # of values with more than 8, in use where the file does not say; None: 16, whatever the file says
CROP_OFFSET = "even"  # how half a pixel before the crop is rounded: to "even", or "down"
# END CONSTANTS

MAX_PIXELS = 89_478_485  # of an image, before and after the resize
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
if importlib.util.find_spec("PIL._avif"):
    FORMATS += ("AVIF",)
ORIENTATIONS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's values as Pillow's transpositions
# What Pillow raises on damaged files, and on those with too many pixels.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)
DAMAGE += (Image.DecompressionBombError,)


def load(variant=None, providers=("CPUExecutionProvider",), threads=None):
    """Open the model: an onnxruntime.InferenceSession. The file must be the one that was exported."""
    import onnxruntime

    variant = variant or next(iter(FILES))
    files = FILES[variant]
    folder = Path(__file__).resolve().parent
    for name, sha256 in files.items():
        digest = hashlib.sha256()
        with open(folder / name, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise ValueError(f"{name} is not the file that was exported (its SHA-256 differs); copy it again")
    options = onnxruntime.SessionOptions()
    if variant in UNPACKED:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(folder / next(iter(files)), options, providers=list(providers))


def preprocess(source):
    """An image, as predict() takes it, for the network: float32 of shape (1, channels, height, width)."""
    if isinstance(source, np.ndarray):
        upright = decode(image_of(source))
    elif isinstance(source, Image.Image):
        upright = decode(source, *depth_of(None, source))
    elif str(source).lower().endswith(".npy"):
        upright = decode(image_of(np.load(source, mmap_mode="r", allow_pickle=False)))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is an error
            image = open_image(source)
        with image:
            upright = decode(image, *depth_of(source, image))
    pixels = np.asarray(crop(resize(upright)))
    if COLOR == "grey":
        pixels = pixels[:, :, np.newaxis]
    elif COLOR == "bgr":
        pixels = pixels[:, :, ::-1]
    x = pixels.astype(np.float32)
    if SCALE == "unit":
        x /= np.float32(255)
    x = (x - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[np.newaxis])


def image_of(array):
    """Of an array (height, width, channels) or (height, width), of 8-bit values from 0 to 255, RGB."""
    if array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is no image; it must be uint8, from 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    counts = (2, 3, 4) if COLOR == "la" else (3, 4)
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in counts)):
        raise ValueError(f"an array of shape {array.shape} is no image; it must be (height, width, channels)")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(f"{array.shape[1]}x{array.shape[0]} pixels are too many")
    return Image.fromarray(np.ascontiguousarray(array))


def open_image(path):
    """One of FORMATS; a HEIC image where pillow-heif is installed."""
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if importlib.util.find_spec("pillow_heif") is None:
            raise
        import pillow_heif

        pillow_heif.register_heif_opener()
        return Image.open(path, formats=("HEIF",))


def depth_of(path, image):
    """Whether values are stored with more than 8 bits, and how many are in use as the file says (None: it does not).

    PNG says so by sBIT, TIFF by BitsPerSample or SMaxSampleValue, PGM by its maximum, to which Pillow itself scales.
    """
    if image.format == "PNG" and path is not None:
        return png_depth(path)
    if image.format == "TIFF":
        stored = image.tag_v2.get(258, (1,))
        stored = max(stored) if isinstance(stored, tuple) else stored
        for value in (2**stored - 1, image.tag_v2.get(341), image.tag_v2.get(281)):
            value = value[0] if isinstance(value, tuple) and value else value
            if stored > 8 and isinstance(value, int) and value & (value + 1) == 0 and 8 < value.bit_length() < 16:
                return True, value.bit_length()
        return stored > 8, None
    if image.format == "PPM" and image.tile and isinstance(image.tile[0][3], tuple):
        maximum = image.tile[0][3][-1]
        return maximum > 255, 16 if 255 < maximum < 65535 else None
    return False, None


def png_depth(path):
    with open(path, "rb") as file:
        is_deep, bits = file.read(33)[24] == 16, None
        while is_deep and bits is None and len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            size = int.from_bytes(head[:4], "big")
            if head[4:] == b"sBIT":
                bits = max(file.read(min(4, size)), default=16)
            else:
                file.seek(size + 4, 1)
    return is_deep, bits if bits in range(9, 16) else None


def high_8(image, told):
    """Of values with more than 8 bits the high 8, of as many as are in use."""
    values = np.asarray(image)
    largest = int(values.max())
    if values.min() < 0 or largest > 65535:
        raise ValueError("it has integers of more than 16 bits")
    used = BITS or 16
    if BITS and told and image.format == "PNG":
        # Values ought to be scaled up to 16 bits; where they are not, none is large, and steps are small.
        is_low = largest < 2**told and (values.astype(np.uint16) % 2 ** (16 - told) > 1).any()
        used = told if is_low else 16
    elif BITS and told and largest < 2**told:
        used = told
    if largest >= 2**used:
        raise ValueError(f"it has values up to {largest}, which are more than {used} bits")
    return Image.fromarray((values.astype(np.uint16) >> (used - 8)).astype(np.uint8))


def decode(image, is_deep=False, told=None):
    """To 8-bit RGB or grey, upright. Transparency is dropped, unless COLOR has alpha."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are too many")
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    if image.mode == "F":
        raise ValueError("it has floating-point values, whose range is undefined")
    if image.mode.startswith("I"):
        image = high_8(image, told)
    elif is_deep and BITS not in (None, 16) and told != 16:
        raise ValueError("it has colours of 16 bits, of which Pillow reads only the high byte")
    if COLOR in ("rgba", "la"):
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    elif isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    image = image.convert({"grey": "L", "la": "LA", "rgba": "RGBA"}.get(COLOR, "RGB"))
    if orientation in ORIENTATIONS:
        image = image.transpose(Image.Transpose(ORIENTATIONS[orientation]))
    return image


def sides(size):
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def resize(image):
    """Horizontally, then vertically: in one call some versions of Pillow choose the other order, and other pixels."""
    width, height = image.size
    rows, columns = sides(RESIZE_SIZE)
    if RESIZE == "none":
        if (height, width) != (rows, columns):
            raise ValueError(f"it is {width}x{height} pixels; this model takes {columns}x{rows}")
        return image
    is_width_scarce = width * rows <= height * columns
    if RESIZE == "exact":
        new_width, new_height = columns, rows
    elif RESIZE == "pad" and is_width_scarce:
        new_width, new_height = max(1, round(rows * width / height)), rows
    elif RESIZE == "pad":
        new_width, new_height = columns, max(1, round(columns * height / width))
    elif is_width_scarce:
        new_width, new_height = columns, int(columns * height / width)
    else:
        new_width, new_height = int(rows * width / height), rows
    if max(new_width * height, new_width * new_height) > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are too narrow to resize to {new_width}x{new_height}")
    how = Image.Resampling[INTERPOLATION.upper()]
    bands = image.split() if image.mode in ("LA", "RGBA") else [image]  # Pillow would weigh colours by their alpha
    if new_width != width:
        bands = [band.resize((new_width, height), how) for band in bands]
    if new_height != height:
        bands = [band.resize((new_width, new_height), how) for band in bands]
    image = bands[0] if len(bands) == 1 else Image.merge(image.mode, bands)
    if RESIZE != "pad":
        return image
    fill = tuple(PAD_COLOR[::-1] if COLOR == "bgr" else PAD_COLOR)
    canvas = Image.new(image.mode, (columns, rows), fill)
    canvas.paste(image, ((columns - new_width) // 2, (rows - new_height) // 2))
    return canvas


def crop(image):
    """The centre; halves of a pixel are rounded to even, or down."""
    rows, columns = sides(IMAGE_SIZE)
    whole = round if CROP_OFFSET == "even" else int
    left, top = whole((image.width - columns) / 2), whole((image.height - rows) / 2)
    return image.crop((left, top, left + columns, top + rows))


def probabilities(outputs):
    """Of one image's outputs: the softmax over the classes, or a sigmoid each."""
    values = outputs.astype(np.float64)
    if OUTPUT == "probabilities":
        return values
    if TASK != "multiclass":
        return np.exp(-np.logaddexp(0.0, -values))
    values -= values.max()
    return np.exp(values - np.log(np.exp(values).sum()))


def predict(session, image, top_k=5):
    """The most probable classes of an image, best first; of a binary model the decided class first.

    The image is the path of an image file or of a .npy, a PIL image, or a uint8 array (height, width, channels), RGB.
    """
    x = preprocess(image)
    if BATCH is not None:
        x = np.repeat(x, BATCH, axis=0)  # nothing else may have a part in the ranges of its values
    outputs = session.run([OUTPUT], {"image": x})[0][0]
    if not np.isfinite(outputs).all():
        raise ValueError("the model returned NaN or infinite values")
    scores = probabilities(outputs)
    if TASK == "binary":
        decided = int(scores[0] >= THRESHOLDS[0])
        order, chosen = [decided, 1 - decided], {decided}
        scores = np.array([1 - scores[0], scores[0]])
    elif TASK == "multilabel":
        order = np.argsort(-scores, kind="stable")
        chosen = set(np.flatnonzero(scores >= np.array(THRESHOLDS)))
    else:
        order = np.argsort(-outputs, kind="stable")
        chosen = {order[0]} if THRESHOLDS is None or scores[order[0]] >= THRESHOLDS[0] else set()
    return [
        {
            "index": int(i),
            "label": None if LABELS is None else LABELS[i],
            "score": float(scores[i]),
            "is_decided": bool(i in chosen),
        }
        for i in order[:top_k]
    ]


def main():
    parser = argparse.ArgumentParser(description="Classify images with the model in this folder.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--variant", choices=list(FILES), default=next(iter(FILES)))
    parser.add_argument("--top-k", type=int, default=5, metavar="K")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a label or a path that its encoding does not have
    if args.top_k < 1:
        parser.error("--top-k must be at least 1")
    try:
        session = load(args.variant)
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install onnxruntime", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results, status = [], 0
    for path in args.images:
        try:
            result = predict(session, path, args.top_k)
        except DAMAGE as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            results.append({"image": path, "error": str(error)})
            status = 1
            continue
        results.append({"image": path, "predictions": result})
        for found in [] if args.json else result:
            print(f"{path}  {found['label'] or found['index']}  {found['score']:.4f}")
    if args.json:
        print(json.dumps(results, indent=2))
    sys.stdout.flush()  # where a closed pipe is told, and not when the interpreter ends
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
