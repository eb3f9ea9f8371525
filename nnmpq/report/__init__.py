"""What a policy looks like: bits per layer as a text table and as a picture."""

from __future__ import annotations

from nnmpq.report.plots import bits_plot
from nnmpq.report.table import bits_table

__all__ = ["bits_plot", "bits_table"]
