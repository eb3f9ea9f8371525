"""Products of float32 matrices."""

from __future__ import annotations

from nnmpq.onednn.library import check, session

PLAIN, TRANSPOSED = b"N", b"T"


def product(
    a: int,
    b: int,
    c: int,
    rows: int,
    columns: int,
    inner: int,
    *,
    turn_a: bool = False,
    turn_b: bool = False,
    accumulate: bool = False,
) -> None:
    """Compute c = op(a) op(b), or c += that; all matrices row by row without gaps.

    Args:
        a: address of a, (rows, inner), or (inner, rows) where it is turned.
        b: address of b, (inner, columns), or (columns, inner) where it is turned.
        c: address of the result, (rows, columns).
        rows: of the result.
        columns: of the result.
        inner: length of the sums.
        turn_a: use a transposed.
        turn_b: use b transposed.
        accumulate: add to c.
    """
    status = session().functions.dnnl_sgemm(
        TRANSPOSED if turn_a else PLAIN,
        TRANSPOSED if turn_b else PLAIN,
        rows,
        columns,
        inner,
        1.0,
        a,
        rows if turn_a else inner,
        b,
        inner if turn_b else columns,
        1.0 if accumulate else 0.0,
        c,
        columns,
    )
    if status:
        check(status, f"a product of {rows} x {inner} by {inner} x {columns}")
