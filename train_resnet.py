"""Train a ResNet with learned bit widths: ``python train_resnet.py EXPERIMENT --cfg cfgs/FILE.cfg``."""

from __future__ import annotations

import sys

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.runs import main

if __name__ == "__main__":
    sys.exit(main("train_resnet.py", architectures=tuple(ARCHITECTURES)))
