"""Train a MobileNet with learned bit widths: ``python train_mobilenet.py EXPERIMENT [--cfg cfgs/FILE.cfg]``."""

from __future__ import annotations

import sys
from pathlib import Path

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.runs import main

CFG = Path(__file__).parent / "cfgs" / "train_mobilenet_quant_fp.cfg"

if __name__ == "__main__":
    sys.exit(main("train_mobilenet.py", architectures=tuple(ARCHITECTURES), cfg=CFG))
