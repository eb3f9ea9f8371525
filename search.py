"""Search the bits of every tensor: ``python search.py EXPERIMENT --cfg cfgs/search_FILE.cfg``."""

from __future__ import annotations

import sys

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.dynamic.run import search_or_gates
from nnmpq.runs import main

if __name__ == "__main__":
    sys.exit(main("search.py", architectures=tuple(ARCHITECTURES), action=search_or_gates))
