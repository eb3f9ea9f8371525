"""`python -m nnmpq`."""

from __future__ import annotations

import sys

from nnmpq.cli import main

if __name__ == "__main__":
    sys.exit(main())
