"""Independent formulas, float64 numpy, of every quantizer's values and gradients.

Written from the papers' equations and the published code's behaviour, without calling the package. A gradient entry is
the sum over the tensor of upstream gradient times the derivative by the raw parameter.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

LN2 = np.log(2.0)
GAUSS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.336, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}
HALF_WAVE = {1: 0.799, 2: 0.538, 3: 0.3217, 4: 0.185, 5: 0.10549, 6: 0.05726, 7: 0.03087, 8: 0.01653}


def half_away(v: Any) -> Any:
    return np.sign(v) * np.floor(np.abs(v) + 0.5)


def p2(v: Any) -> Any:
    return 2.0 ** half_away(np.log2(v))


def _uniform(x: Any, d: Any, top: Any, s: int) -> tuple:
    low = -top * s
    c = np.clip(x, low, top)
    y = d * half_away(c / d)
    inside = (x > low) & (x < top)
    side = (x >= top).astype(float) - s * (x <= low)
    return y, inside.astype(float), side, y - c


def _sum(a: Any, like: Any, axis: int | None) -> Any:
    if np.ndim(like) == 0 or axis is None:
        return np.sum(a)
    return a.sum(tuple(i for i in range(a.ndim) if i != axis))


def _spread(v: Any, x: Any, axis: int | None) -> Any:
    if np.ndim(v) == 0 or axis is None:
        return v
    shape = [1] * x.ndim
    shape[axis] = -1
    return np.asarray(v).reshape(shape)


def uniform_delta_xmax(q: Any, v: dict, x: Any, g: Any) -> tuple:
    s, axis = int(q.signed), q.channel_axis
    d_raw, top = (_spread(v[k], x, axis) for k in ("step", "xmax"))
    d = p2(d_raw)
    reach = top if q.faithful else d * half_away(top / d)
    y, inside, side, r = _uniform(x, d, reach, s)
    # Snapped, y equals the clipped x where it saturates, so the step's residual lives inside the range alone.
    return (
        y,
        g * inside,
        {"step": _sum(g * r / d_raw, v["step"], axis), "xmax": _sum(g * side, v["xmax"], axis)},
    )


def uniform_b_xmax(q: Any, v: dict, x: Any, g: Any) -> tuple:
    s, axis = int(q.signed), q.channel_axis
    n = half_away(float(v["bits"]))
    levels = 2.0 ** (n - s) - 1
    top = _spread(v["xmax"], x, axis)
    d = p2(top / levels)
    slope = LN2 * 2.0 ** (n - s) / levels
    if q.faithful:
        y, inside, side, r = _uniform(x, d, top, s)
        return (
            y,
            g * inside,
            {"xmax": _sum(g * (side + r / top), v["xmax"], axis), "bits": np.sum(-slope * g * r)},
        )
    y, inside, side, r = _uniform(x, d, d * levels, s)
    # step and range both scale with xmax; with more bits the step shrinks, the range d * levels stays.
    return (
        y,
        g * inside,
        {
            "xmax": _sum(g * (side * d * levels + r) / top, v["xmax"], axis),
            "bits": np.sum(-slope * g * r),
        },
    )


def uniform_delta_b(q: Any, v: dict, x: Any, g: Any) -> tuple:
    s, axis = int(q.signed), q.channel_axis
    n = half_away(float(v["bits"]))
    levels = 2.0 ** (n - s) - 1
    d_raw = _spread(v["step"], x, axis)
    d = p2(d_raw)
    y, inside, side, r = _uniform(x, d, d * levels, s)
    return (
        y,
        g * inside,
        {
            "step": _sum(g * (inside * r + side * levels * d) / d_raw, v["step"], axis),
            "bits": np.sum(LN2 * 2.0 ** (n - s) * d * g * side),
        },
    )


def _pow2(q: Any, x: Any, low: Any, high: Any) -> tuple:
    sign = np.where(x < 0, -1.0, 1.0) if q.signed else 1.0
    a = np.abs(x) if q.signed else np.maximum(x, 0)
    with np.errstate(divide="ignore"):
        power = 2.0 ** np.floor(0.5 + np.log2(a))
    zero = (a < low / np.sqrt(2)) & bool(q.with_zero)
    y = sign * np.where(zero, 0, np.clip(power, low, high))
    inside = (a >= low) & (a < high)
    safe = np.where(x == 0, 1.0, x)
    return y, inside * y / safe, sign * ((a < low) & ~zero), sign * (a >= high)


def pow2_xmin_xmax(q: Any, v: dict, x: Any, g: Any) -> tuple:
    axis = q.channel_axis
    lo, hi = (_spread(v[k], x, axis) for k in ("xmin", "xmax"))
    y, slope, to_low, to_high = _pow2(q, x, p2(lo), p2(hi))
    return (
        y,
        g * slope,
        {
            "xmin": _sum(g * to_low * p2(lo) / lo, v["xmin"], axis),
            "xmax": _sum(g * to_high * p2(hi) / hi, v["xmax"], axis),
        },
    )


def pow2_b_xmax(q: Any, v: dict, x: Any, g: Any) -> tuple:
    axis = q.channel_axis
    k = half_away(float(v["bits"])) - int(q.signed) - int(q.with_zero)
    raw = _spread(v["xmax"], x, axis)
    high = p2(raw)
    low = np.maximum(high * 2.0 ** (1 - 2.0**k), 2.0**-126)
    y, slope, to_low, to_high = _pow2(q, x, low, high)
    return (
        y,
        g * slope,
        {
            "xmax": _sum(g * (to_high * high + to_low * low) / raw, v["xmax"], axis),
            "bits": np.sum(-g * to_low * low * LN2**2 * 2.0**k),
        },
    )


def pow2_b_xmin(q: Any, v: dict, x: Any, g: Any) -> tuple:
    axis = q.channel_axis
    k = half_away(float(v["bits"])) - int(q.signed) - int(q.with_zero)
    raw = _spread(v["xmin"], x, axis)
    low = p2(raw)
    high = np.minimum(low * 2.0 ** (2.0**k - 1), 2.0**127)
    y, slope, to_low, to_high = _pow2(q, x, low, high)
    return (
        y,
        g * slope,
        {
            "xmin": _sum(g * (to_high * high + to_low * low) / raw, v["xmin"], axis),
            "bits": np.sum(g * to_high * high * LN2**2 * 2.0**k),
        },
    )


def gaussian(q: Any, v: dict, x: Any, g: Any) -> tuple:
    b = int(v["bits"])
    d = GAUSS[b] * np.sqrt(np.sum((x - x.mean()) ** 2) / (x.size - 1))
    edge = (2.0 ** (b - 1) - 0.5) * d
    return np.clip((np.floor(x / d) + 0.5) * d, -edge, edge), g, {}


def half_wave_gaussian(q: Any, v: dict, x: Any, g: Any) -> tuple:
    b = int(v["bits"])
    d = HALF_WAVE[b]
    y, inside, _, _ = _uniform(x, d, d * (2**b - 1), 0)
    return y, g * inside, {}


def dorefa(q: Any, v: dict, x: Any, g: Any) -> tuple:
    b = int(v["bits"])
    if b == 1:
        return sign_mean(q, v, x, g)
    n = 2.0**b - 1
    t = np.tanh(x)
    top = np.unravel_index(np.argmax(np.abs(t)), t.shape)
    m = np.abs(t[top])
    y = 2 * half_away(n * (t / (2 * m) + 0.5)) / n - 1
    gt = g / m
    gt[top] -= np.sign(t[top]) * np.sum(g * t) / m**2
    return y, gt * (1 - t**2), {}


def pact(q: Any, v: dict, x: Any, g: Any) -> tuple:
    n, alpha = 2.0 ** int(v["bits"]) - 1, float(v["xmax"])
    y, inside, side, r = _uniform(x, alpha / n, alpha, 0)
    residual = r / alpha if q.residual_gradient else 0.0
    return y, g * inside, {"xmax": np.sum(g * (side + residual))}


def haq(q: Any, v: dict, x: Any, g: Any) -> tuple:
    top = float(v["xmax"])
    return _uniform(x, top / (2.0 ** (int(v["bits"]) - 1) - 1), top, 1)[0], g, {}


def sign_mean(q: Any, v: dict, x: Any, g: Any) -> tuple:
    return np.where(x < 0, -1.0, 1.0) * np.mean(np.abs(x)), g, {}


REFERENCE: dict[str, Callable[..., tuple]] = {
    "uniform_b_xmax": uniform_b_xmax,
    "uniform_delta_xmax": uniform_delta_xmax,
    "uniform_delta_b": uniform_delta_b,
    "pow2_b_xmax": pow2_b_xmax,
    "pow2_b_xmin": pow2_b_xmin,
    "pow2_xmin_xmax": pow2_xmin_xmax,
    "gaussian": gaussian,
    "half_wave_gaussian": half_wave_gaussian,
    "dorefa": dorefa,
    "haq": haq,
    "pact": pact,
    "sign_mean": sign_mean,
}
