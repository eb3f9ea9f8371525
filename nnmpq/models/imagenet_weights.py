"""The ImageNet weights that nnabla publishes, by the names of `nnabla.models.imagenet`."""

from __future__ import annotations

from pathlib import Path

import nnabla as nn

from nnmpq.files import nearest
from nnmpq.models.structure import load_by_structure
from nnmpq.models.weights import WeightsError

# The file of each name that may have a network here.
FILES = {
    "ResNet18": "Resnet-18.nnp",
    "ResNet34": "Resnet-34.nnp",
    "ResNet50": "Resnet-50.nnp",
    "MobileNet": "MobileNet.nnp",
    "MobileNetV2": "MobileNet-v2.nnp",
    "GoogLeNet": "GoogLeNet.nnp",
    "InceptionV3": "Inception-v3.nnp",
    "VGG11": "VGG-11.nnp",
    "VGG16": "VGG-16.nnp",
}
# Where nnabla's own classes put their files.
FOLDER = "~/nnabla_data/nnp_models/imagenet"
# The name of the network in all of them.
NETWORK = "Training"


def load_imagenet(name: str, y: nn.Variable, folder: str | Path = FOLDER, *, padding: bool = True) -> list[str]:
    """Load the weights that nnabla publishes for a network of ImageNet; nothing is downloaded.

    Their parameters are named after the boxes of a drawing, so they are found as by `load_by_structure`.

    Args:
        name: its name in `nnabla.models.imagenet`, a key of `FILES`.
        y: output of the network that takes them, with 1000 classes.
        folder: where the file is.
        padding: False accepts other paddings.

    Returns:
        What images must go through before the network, as from `load_by_structure`.

    Raises:
        WeightsError: the name is unknown, the file is not there, or its network is another one.

    Example:
        >>> load_imagenet("ResNet18", nn.Variable((1, 1000)), "nowhere")
        Traceback (most recent call last):
        nnmpq.models.weights.WeightsError: nowhere/Resnet-18.nnp: no such file; ...
    """
    if name not in FILES:
        raise WeightsError(f"no ImageNet weights {name!r}; the nearest is {nearest(name, FILES)!r}, all are {[*FILES]}")
    path = Path(folder).expanduser() / FILES[name]
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; nnabla.models.imagenet.{name}() fetches it, from the server that "
            "NNABLA_MODELS_URL_BASE names if it is set; or put it there"
        )
    return load_by_structure(path, y, network=NETWORK, padding=padding)
