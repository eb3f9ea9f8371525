"""What is wrong with data."""

from __future__ import annotations


class DataError(ValueError):
    """Data that are missing, damaged or in another layout."""
