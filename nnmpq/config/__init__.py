"""Experiments: a section of a ``.cfg`` file becomes one checked object."""

from __future__ import annotations
