"""What to do, for messages of the export that do not say it themselves: a part of the message, and the remedy.

The first part that a message contains counts.
"""

from __future__ import annotations

_COPY = "The file is damaged or not what its name says: copy or download it again."
_OTHER_NETWORK = "Name the architecture that the checkpoint was trained as; `export-model --list` shows all."
_OWN = (
    "Export it as your own module: `export-model file.py:factory`, with a factory that builds it in the library that "
    "wrote it."
)
_REPORT = "Report it, with the network and the message: EdgePort or PyTorch's exporter is at fault."
_ITS_LINE = "Mend the line of your source that the message names."

# Messages whose part after the semicolon is no remedy.
INSTEAD: dict[str, str] = {
    "a module of your own needs the side": "Add `--image-size` with the side of its input in pixels.",
    "images cannot be read, more than": "Take the images that do not open out of the folder; the last error names one.",
    "unpacks to": "Give a smaller file: no ViT of EdgePort's needs as much.",
    "it cannot be a description": _COPY,
    "EdgePort's network has": _OWN,
    "reads timm's ViT with": _OWN,
    "that EdgePort ships are for": "Choose the architecture that it names, or give your file as `./NAME`.",
    "appeared while the export ran": "Run the export again, with another folder or `--force`.",
}
REMEDIES: dict[str, str] = {
    # a module of the user's own
    "gives …, not a torch.nn.Module": "Let the factory return the network, for example `def make(): return Net()`.",
    "has no callable": "Name a function or class of that file that takes no arguments; the closest are listed.",
    "importing raises": _ITS_LINE,
    # graph
    "the graph is not valid ONNX": _REPORT,
    "changed the graph's inputs, outputs or opset": _REPORT,
    "left an invalid graph": _REPORT,
    "onnxsim failed on the traced graph": _REPORT,
    "PyTorch returned no graph": _REPORT,
    "PyTorch could not trace the module": _ITS_LINE,
    "is the disk full?": "Make room on the disk of the output folder.",
    # a file of somebody else
    "is not an .npz of plain arrays": "Write it with `numpy.savez(FILE, inputs=..., outputs=...)`.",
    "not outputs and one of inputs or images": "Write it with `numpy.savez(FILE, inputs=..., outputs=...)`.",
    "…: outputs has the shape": "Write it with `numpy.savez(FILE, inputs=..., outputs=...)`, a row for each input.",
    "…: images is": "Give pixels as uint8, before any normalization, or `inputs` as the file takes them.",
    "…: inputs has the shape": "Give inputs as the file takes them: of its size, in its order of axes.",
    "ends in log-sigmoid": "Take it out of forward, or export the network without it.",
    # quantization
    "quantizing raises": "Add `--quantize none`, and report it, with the network and the message.",
    # parity
    "stage … departs from the runtime": _REPORT,
    "stage … departs from …": "For `fp32` report it, with the node that is named; for `int8` set "
    "`--max-drop POINTS`, give better `--calibration` images, or look at `--explain`.",
    "stage …: … departs from …": "The `.onnx` file does not give what the other one holds: see that the outputs are of "
    "this very network, for the same inputs in the same normalization.",
    "stage …: the outputs have shape": _REPORT,
    "stage … fails": _REPORT,
    "preprocessing: the step": "Install the tested Pillow (`constraints.txt`); if it is installed, report it.",
    "the answers are not …'s": _REPORT,
    "stage self-test": _REPORT,
    "stage infer.py": _REPORT,
    # options
    "--match order needs": "Give one folder per class, no more and no fewer, or name the folders as the labels.",
    "an image is …, not": "Give a path, bytes, an open file, a PIL image or a uint8 array.",
    "… cannot be read: …": _COPY,
    "--sum-channels reduces a checkpoint": "Give both, or omit `--sum-channels`.",
    "more than once": "List each once.",
    "is for int8 variants, but --quantize lists none": "Add `int8` to `--quantize`, or omit the option.",
    "needs an ExportConfig": "Pass both: `export(module, ExportConfig(output=..., image_size=...))`.",
    "golden image": "Take the image out of the folder of `--golden`, or replace it.",
    "--labels …": "Give a text file in UTF-8 with one label per line, in the order of the classes.",
    "calling …() raises": "Mend the line of your source that the message names; where an argument is missing, name a "
    "function that takes none but `num_classes`.",
    "--scale byte needs": "Add `--mean` and `--std` in pixel values, such as `--mean 104 117 123 --std 1 1 1`.",
    "contradicts --channels": "Omit one of the two.",
    "--crop-pct requires a resize": "Omit `--crop-pct`, or choose `--resize shorter`.",
    "these weights are for": _OTHER_NETWORK,
    "is of type …, not an object": _COPY,
    "applies to EdgePort's own architectures": "Omit the option: your own module is built as your factory builds it.",
    "--num-classes is …, but a binary task": "Omit `--num-classes`, or choose `--task multiclass`.",
    "--num-classes is …, but … gives": "Omit `--num-classes`: it follows from what the module gives.",
    "labels, but the model has": "Give one label for each class, in their order.",
    "labels: there are": "Give one label for each class, in their order.",
    "num_classes: a binary task": "Omit `--num-classes`, or choose `--task multiclass`.",
    "thresholds: a": "Give as many values to `--threshold` as the message says.",
    "thresholds: …": "Give `--threshold` values above 0 and below 1.",
    "resize_size": "Set `--image-size` and `--resize` so that they agree.",
    "the fields are": "The manifest was edited: export again.",
    # images
    "does not exist": "Give a file or folder that exists.",
    "contains no folders": "Put the images of each class into a folder of its own, or give a CSV.",
    "contains no rows": "Write a line for each image, below the line `path,labels`.",
    "but an image of a … model has one": "Leave one label in that line.",
    "is not a CSV file in UTF-8": "Save it as CSV in UTF-8, with the columns `path,labels`.",
    "the path is empty": "Write the image's path in that line.",
    "is not a folder of images": "Give a folder that exists.",
    "contains no image": "Give a folder with images of the formats that the message lists.",
    "has no pixels": "Replace the image.",
    "an image array must be": "Convert the array: 8-bit values from 0 to 255, height by width by channels.",
    "cannot be read as an image": "Replace the file, or save it as PNG or JPEG.",
    "is damaged or cut short": "Copy the file again, or take it out.",
    # weights
    "do not fit": _OTHER_NETWORK + " For your own module, build it as it was trained.",
    "are not those of a square grid": _OTHER_NETWORK,
    "is not a multiple of the checkpoint's": _OTHER_NETWORK,
    "is empty (0 bytes)": _COPY,
    "or is damaged": _COPY,
    "the file name must end in": "Rename the file as its content is, or save it with `torch.save` as `.pth`.",
    "hold NaN or infinite values": "The training diverged, or the file is damaged: take an earlier checkpoint.",
    "write a repository as": "For example `hf://google/vit-base-patch16-224`.",
    "it lacks the shard": "Name a revision of the repository that holds all its shards.",
    "needs huggingface_hub": "Run that command.",
    "weights …": "What follows the name is the reason: mend it, or give the weights as a local file.",
    "layer_norm_eps is": "Mend the value in `config.json`, or copy the file again.",
    "num_attention_heads is": "Mend the value in `config.json`, or copy the file again.",
    "is not a JSON object": _COPY,
    "weight_map": _COPY,
    "that EdgePort does not have": _OWN,
    # quantized variants
    "quantization changed the opset": _REPORT,
    "quantization left an invalid graph": _REPORT,
    "it is NaN or infinite on a calibration image": "Take the image out of the folder of `--calibration`.",
    "activation …": "Take the image that gives such values out of the folder of `--calibration`.",
    "none of the images could be read": "Give a folder of images that open in an image viewer.",
    "--max-drop needs real images": "Add one of the two.",
    "has no layer that can be quantized": "Omit that variant: `--quantize none`, or `--quantize fp16`.",
    # the bundle
    "in ONNX Runtime's own format": "Omit `--ort`, and report it.",
    "part of that path is a file": "Choose another folder for `-o`.",
    "cannot write to": "Choose a folder that you may write to, on a disk with room.",
}
