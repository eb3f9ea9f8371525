"""What is run by an interpreter with PyTorch is no test module of this one."""

from __future__ import annotations

collect_ignore = ["torch_outputs.py"]
