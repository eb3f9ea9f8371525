"""An interpreter of arithmetic on a few numbers: a graph of a thousand tiny functions as one loop.

Numbers lie in one array of registers. An instruction is a row of whole numbers (opcode, result, count, first operand,
its stride, second operand, its stride) and a constant; a stride of 0 repeats one number.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# fmt: off
(COPY, STOP, CONSTANT, MAXIMUM, MINIMUM, SHIFT, SCALE, POWER, EXPONENTIAL, RECIPROCAL,
 LOGARITHM, ROUND, CEILING, RECTIFY, ADD, SUBTRACT, MULTIPLY, DIVIDE, SUM, LARGEST) = range(20)
# fmt: on


@njit(error_model="numpy", cache=True)
def forward(code, constants, values):  # type: ignore[no-untyped-def]
    """Run the instructions in order."""
    for k in range(code.shape[0]):
        op, out, count, a, a_step, b, b_step = code[k]
        constant = constants[k]
        if op == SUM or op == LARGEST:
            total = np.float64(values[a])
            for i in range(1, count):
                total = total + values[a + i] if op == SUM else max(total, np.float64(values[a + i]))
            values[out] = total
            continue
        for i in range(count):
            x = values[a + i * a_step]
            y = values[b + i * b_step]
            r = x
            if op == CONSTANT:
                r = constant
            elif op == MAXIMUM:
                r = max(x, constant)
            elif op == MINIMUM:
                r = min(x, constant)
            elif op == SHIFT:
                r = x + constant
            elif op == SCALE:
                r = x * constant
            elif op == POWER:
                r = np.float32(np.float64(x) ** np.float64(constant))
            elif op == EXPONENTIAL:
                r = np.float32(np.float64(constant) ** np.float64(x))
            elif op == RECIPROCAL:
                r = constant / x
            elif op == LOGARITHM:
                r = np.float32(np.log(np.float64(x)))
            elif op == ROUND:
                r = np.float32(np.copysign(np.floor(np.abs(np.float64(x)) + 0.5), x))
            elif op == CEILING:
                r = np.ceil(x)
            elif op == RECTIFY:
                r = max(x, np.float32(0))
            elif op == ADD:
                r = x + y
            elif op == SUBTRACT:
                r = x - y
            elif op == MULTIPLY:
                r = x * y
            elif op == DIVIDE:
                r = x / y
            values[out + i] = r


@njit(error_model="numpy", cache=True)
def backward(code, constants, values, gradients):  # type: ignore[no-untyped-def]
    """Run the instructions' gradients from the last to the first; rounding lets them through."""
    for k in range(code.shape[0] - 1, -1, -1):
        op, out, count, a, a_step, b, b_step = code[k]
        constant = constants[k]
        if op == SUM:
            for i in range(count):
                gradients[a + i] += gradients[out]
            continue
        if op == LARGEST:
            best = 0
            for i in range(1, count):
                if values[a + i] > values[a + best]:
                    best = i
            gradients[a + best] += gradients[out]
            continue
        for i in range(count):
            g = gradients[out + i]
            p, q = a + i * a_step, b + i * b_step
            x, y = values[p], values[q]
            if op == COPY or op == SHIFT or op == ROUND or op == CEILING:
                gradients[p] += g
            elif op == MAXIMUM:
                gradients[p] += g if x > constant else 0.0
            elif op == MINIMUM:
                gradients[p] += g if x < constant else 0.0
            elif op == SCALE:
                gradients[p] += g * constant
            elif op == POWER:
                gradients[p] += g * constant * np.float64(x) ** (np.float64(constant) - 1.0)
            elif op == EXPONENTIAL:
                gradients[p] += g * values[out + i] * np.log(np.float64(constant))
            elif op == RECIPROCAL:
                gradients[p] -= g * values[out + i] / x
            elif op == LOGARITHM:
                gradients[p] += g / x
            elif op == RECTIFY:
                gradients[p] += g if x > 0 else 0.0
            elif op == ADD:
                gradients[p] += g
                gradients[q] += g
            elif op == SUBTRACT:
                gradients[p] += g
                gradients[q] -= g
            elif op == MULTIPLY:
                gradients[p] += g * y
                gradients[q] += g * x
            elif op == DIVIDE:
                gradients[p] += g / y
                gradients[q] -= g * values[out + i] / y
