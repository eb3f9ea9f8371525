"""The integer linear program of an allocation: one choice a site, costs linear in choices and pairs of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from scipy.optimize import LinearConstraint
from scipy.sparse import coo_matrix

from nnmpq.budget import Budget
from nnmpq.cost import FLOAT_BITS
from nnmpq.graph.network import ACTIVATION, Network

BITS_PER_KIB = 8 * 1024
Choices = Mapping[str, "tuple[int, ...]"]


@attrs.define
class Rows:
    """Rows of a linear program while they are written; columns are numbered as they are asked for."""

    columns: int = 0
    _rows: list[int] = attrs.field(factory=list)
    _places: list[int] = attrs.field(factory=list)
    _values: list[float] = attrs.field(factory=list)
    _lower: list[float] = attrs.field(factory=list)
    _upper: list[float] = attrs.field(factory=list)

    def new(self, count: int) -> range:
        """Return fresh columns."""
        first, self.columns = self.columns, self.columns + count
        return range(first, self.columns)

    def add(self, places: Sequence[int], values: Sequence[float], lower: float, upper: float) -> None:
        """Add the row lower <= sum of value * column <= upper."""
        self._rows.extend([len(self._lower)] * len(places))
        self._places.extend(places)
        self._values.extend(values)
        self._lower.append(lower)
        self._upper.append(upper)

    def constraint(self) -> LinearConstraint:
        """Return all rows."""
        shape = (len(self._lower), self.columns)
        matrix = coo_matrix((self._values, (self._rows, self._places)), shape=shape).tocsr()
        return LinearConstraint(matrix, self._lower, self._upper)


@attrs.frozen(eq=False)
class Program:
    """The rows of an allocation problem.

    Args:
        rows: one-hot choices, limits and products.
        choices: by site, the widths it chooses among.
        columns: by site, the columns of its choices.
    """

    rows: Rows
    choices: Choices
    columns: dict[str, range]

    def chosen(self, solution: np.ndarray) -> dict[str, int]:
        """Return the widths that a solution stands for."""
        return {
            site: self.choices[site][int(np.argmax(solution[places.start : places.stop]))]
            for site, places in self.columns.items()
        }

    def forbid(self, bits: Mapping[str, int]) -> None:
        """Exclude one allocation, and no other."""
        places = [places[self.choices[site].index(bits[site])] for site, places in self.columns.items()]
        self.rows.add(places, [1.0] * len(places), 0.0, len(places) - 1.0)


def bitops_limit(network: Network, budget: Budget) -> float | None:
    """Return the tighter of the limits on BitOps and on mean bits, in BitOps."""
    limits = [] if budget.bitops is None else [budget.bitops]
    limits += [] if budget.mean_bits is None else [budget.mean_bits**2 * network.macs]
    return min(limits, default=None)


def build(network: Network, budget: Budget, choices: Choices, fixed: Mapping[str, int]) -> Program:
    """Write the program: a one-hot choice a site, and a row a limit.

    BitOps are sums of MACs * weight bits * activation bits. Each product becomes a joint distribution of two one-hot
    choices, whose margins are the choices: at whole choices it is their product. A layer that reads a concatenation
    works at a width whose upper tail covers that of each of its inputs.

    Args:
        network: the network.
        budget: its limits; the largest activation must be kept by the choices already.
        choices: by site, ascending widths.
        fixed: bits of the sites that have no choice; sites in neither are float.
    """
    rows = Rows()
    columns = {site: rows.new(len(widths)) for site, widths in choices.items()}
    for places in columns.values():
        rows.add(places, [1.0] * len(places), 1.0, 1.0)
    program = Program(rows, choices, columns)
    if budget.weights_kib is not None:
        _stored(program, network, fixed, budget.weights_kib, activations=False)
    if budget.activations_sum_kib is not None:
        _stored(program, network, fixed, budget.activations_sum_kib, activations=True)
    limit = bitops_limit(network, budget)
    if limit is not None:
        _bitops(program, network, fixed, limit)
    return program


def _limit(rows: Rows, places: Sequence[int], values: Sequence[float], room: float, limit: float) -> None:
    # A hair more than the limit: what is on it to the last bit stays in; what is over is found by the exact cost.
    if places:
        scale = 1.0 / max(limit, 1e-300)
        rows.add(places, [value * scale for value in values], -np.inf, room * scale + 1e-9)


def _stored(program: Program, network: Network, fixed: Mapping[str, int], limit: float, *, activations: bool) -> None:
    places: list[int] = []
    values: list[float] = []
    room = limit * BITS_PER_KIB
    for site in network.sites():
        if (site.role == ACTIVATION) != activations:
            continue
        if site.name in program.columns:
            places += program.columns[site.name]
            values += [float(site.elements * bits) for bits in program.choices[site.name]]
        elif not activations or site.name in fixed:
            room -= site.elements * fixed.get(site.name, FLOAT_BITS)
    _limit(program.rows, places, values, room, limit * BITS_PER_KIB)


def _bitops(program: Program, network: Network, fixed: Mapping[str, int], limit: float) -> None:
    pairs: dict[tuple[str, tuple[str, ...]], int] = {}
    for layer in network.layers:
        key = (layer.weight.name, layer.inputs)
        pairs[key] = pairs.get(key, 0) + layer.macs
    reads: dict[tuple[str, ...], tuple[tuple[int, ...], Sequence[int]]] = {}
    places: list[int] = []
    values: list[float] = []
    room = limit
    for (weight, inputs), macs in pairs.items():
        if inputs not in reads:
            reads[inputs] = _read(program, inputs, fixed)
        widths, read = reads[inputs]
        if weight not in program.columns:
            bits = fixed.get(weight, FLOAT_BITS)
            if read:
                places += read
                values += [float(macs * bits * width) for width in widths]
            else:
                room -= macs * bits * widths[0]
        elif not read:
            places += program.columns[weight]
            values += [float(macs * bits * widths[0]) for bits in program.choices[weight]]
        else:
            products, costs = _products(program, weight, widths, read)
            places += products
            values += [float(macs * cost) for cost in costs]
    _limit(program.rows, places, values, room, limit)


def _read(program: Program, inputs: Sequence[str], fixed: Mapping[str, int]) -> tuple[tuple[int, ...], Sequence[int]]:
    """Widths that a layer may read at, and the columns of that choice; one width and no column where it is given."""
    free = list(dict.fromkeys(name for name in inputs if name in program.columns))
    given = [fixed.get(name, FLOAT_BITS) for name in inputs if name not in program.columns]
    least = max(given, default=0 if inputs else FLOAT_BITS)
    if not free:
        return (least,), ()
    if len(free) == 1 and least <= program.choices[free[0]][0]:
        return program.choices[free[0]], program.columns[free[0]]
    least = max([least, *(program.choices[name][0] for name in free)])
    widths = tuple(sorted({least, *(b for name in free for b in program.choices[name] if b > least)}))
    rows = program.rows
    read = rows.new(len(widths))
    rows.add(read, [1.0] * len(read), 1.0, 1.0)
    for name in free:
        for width in widths[1:]:
            above = [c for bits, c in zip(program.choices[name], program.columns[name]) if bits >= width]
            if above:
                tail = read[widths.index(width) :]
                rows.add([*tail, *above], [1.0] * len(tail) + [-1.0] * len(above), 0.0, np.inf)
    return widths, read


def _products(program: Program, weight: str, widths: Sequence[int], read: Sequence[int]) -> tuple[list[int], list[int]]:
    """Columns of the joint choice of a weight's and a read width, and the product of the bits in each."""
    rows, own = program.rows, program.columns[weight]
    joint = np.array(rows.new(len(own) * len(read))).reshape(len(own), len(read))
    for line, column in zip(joint, own):
        rows.add([*line.tolist(), column], [1.0] * len(read) + [-1.0], 0.0, 0.0)
    for line, column in zip(joint.T, read):
        rows.add([*line.tolist(), column], [1.0] * len(own) + [-1.0], 0.0, 0.0)
    products = [bits * width for bits in program.choices[weight] for width in widths]
    return joint.ravel().tolist(), products
