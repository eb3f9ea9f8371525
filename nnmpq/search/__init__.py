"""Searches: from network, data and budget to a policy; one file a method, `SEARCHES` names them all."""

from __future__ import annotations

from typing import Callable

from nnmpq.policy import Policy
from nnmpq.search import edmips, gmpq, learned, progressive, sensitivity, uniform
from nnmpq.search.task import SearchTask

Search = Callable[[SearchTask], Policy]

# A method is one file with one function `search`; the tests take it up by themselves.
SEARCHES: dict[str, Search] = {
    "uniform": uniform.search,
    "learned": learned.search,
    "edmips": edmips.search,
    "gmpq": gmpq.search,
    "progressive": progressive.search,
    "sensitivity": sensitivity.search,
}

__all__ = ["SEARCHES", "Search", "SearchTask"]
