"""The C functions that compute the operations.

`$x`, `$w` and `$y` stand for types of input, weight and output, `$from` and `$to` for the names of their forms,
`$load` and `$store` for what reads and writes one number of such a form, and `$number` for the type of what is written.
"""

from __future__ import annotations

from string import Template

REQUANTISE = """
/* Rounding is in the bias; a negative sum is never shifted. */
static int32_t requantise(const struct requantiser *r, int32_t channel, int32_t sum)
{
    const int64_t v = (int64_t)sum * r->multiplier[channel] + r->bias[channel];
    uint32_t level = 0;

    if (r->edges != NULL) {
        while (level < r->top && v >= r->edges[level]) {
            ++level;
        }
    } else if (v > 0) {
        const uint64_t shifted = (uint64_t)v >> r->shift[channel];
        level = shifted > r->top ? r->top : (uint32_t)shifted;
    }
    if (r->first != NULL) {
        uint32_t i;
        for (i = r->first[channel]; i < r->first[channel + 1]; ++i) {
            if (r->exception[i] == sum) {
                level = (uint32_t)((int32_t)level + r->correction[i]);
            }
        }
    }
    return r->values != NULL ? r->values[level] : r->low + (int32_t)level;
}
"""

# The kernel columns (or rows) that lie inside the map, for a window that starts at `start`.
INSIDE = """
static void inside(int32_t start, int32_t length, int32_t kernel, int32_t dilation, int32_t *first, int32_t *end)
{
    const int32_t last = length - 1 - start;

    *first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    *end = last < 0 ? 0 : last / dilation + 1;
    if (*end > kernel) {
        *end = kernel;
    }
    if (*first > *end) {
        *first = *end;
    }
}
"""

UNPACK = Template("""
/* Unpack `count` weights from number `start` on. */
static void unpack_$w(const struct convolution *c, uint32_t start, uint32_t count, $w *weights)
{
    const uint32_t bits = c->bits, mask = (1u << bits) - 1u;
    const int32_t base = c->base, scale = c->scale;
    uint32_t i = 0, position = start * bits;
    const uint8_t *bytes = c->weights + (position >> 3);

    if (bits == 8u) {
        for (; i < count; ++i) {
            weights[i] = ($w)(base + scale * (int32_t)bytes[i]);
        }
    } else if (bits == 4u && (position & 7u) == 0u) {
        for (; i + 1u < count; i += 2u) {
            const uint32_t byte = *bytes++;
            weights[i] = ($w)(base + scale * (int32_t)(byte & 15u));
            weights[i + 1u] = ($w)(base + scale * (int32_t)(byte >> 4));
        }
    } else if (bits == 2u && (position & 7u) == 0u) {
        for (; i + 3u < count; i += 4u) {
            const uint32_t byte = *bytes++;
            weights[i] = ($w)(base + scale * (int32_t)(byte & 3u));
            weights[i + 1u] = ($w)(base + scale * (int32_t)(byte >> 2 & 3u));
            weights[i + 2u] = ($w)(base + scale * (int32_t)(byte >> 4 & 3u));
            weights[i + 3u] = ($w)(base + scale * (int32_t)(byte >> 6));
        }
    }
    for (position = (start + i) * bits; i < count; ++i, position += bits) {
        const uint8_t *at = c->weights + (position >> 3);
        const uint32_t below = position & 7u;
        uint32_t pair = at[0];
        if (below + bits > 8u) {
            pair |= (uint32_t)at[1] << 8;
        }
        weights[i] = ($w)(base + scale * (int32_t)(pair >> below & mask));
    }
    if (c->numbers != NULL) {
        for (i = 0; i < count; ++i) {
            weights[i] = ($w)c->numbers[weights[i]];
        }
    }
}
""")

CONVOLVE = Template("""
/* Weights are unpacked one output channel at a time, once for the whole map. */
static void convolve_${from}_${w}_${to}(const struct convolution *c, const $x *x, $w *weights, $y *y)
{
    const struct window *k = &c->window;
    const int32_t inner = c->in.channels / c->group, each = c->out.channels / c->group;
    const int32_t size = k->rows * k->columns * inner;
    /* Neighbouring columns lie side by side: one long run instead of many. */
    const int merges = c->group == 1 && k->dilation_columns == 1;
    int32_t o, row, column;

    for (o = 0; o < c->out.channels; ++o) {
        const int32_t group = o / each * inner;
        unpack_$w(c, (uint32_t)(o * size), (uint32_t)size, weights);
        for (row = 0; row < c->out.rows; ++row) {
            const int32_t top = row * k->stride_rows - k->pad_rows;
            int32_t row_first, row_end;
            inside(top, c->in.rows, k->rows, k->dilation_rows, &row_first, &row_end);
            for (column = 0; column < c->out.columns; ++column) {
                const int32_t left = column * k->stride_columns - k->pad_columns;
                int32_t first, end, i, j, sum = 0;
                inside(left, c->in.columns, k->columns, k->dilation_columns, &first, &end);
                for (i = row_first; i < row_end; ++i) {
                    const int32_t line = (top + i * k->dilation_rows) * c->in.columns;
                    const int32_t length = merges ? (end - first) * inner : inner;
                    const int32_t runs = merges ? first + (end > first) : end;
                    for (j = first; j < runs; ++j) {
                        const int32_t a = group + (line + left + j * k->dilation_columns) * c->in.channels;
                        const $w *b = weights + (i * k->columns + j) * inner;
                        int32_t n;
                        for (n = 0; n < length; ++n) {
                            sum += ($w)$load(x, a + n) * b[n];
                        }
                    }
                }
                $store(y, (row * c->out.columns + column) * c->out.channels + o,
                    ($number)requantise(&c->requantiser, o, sum));
            }
        }
    }
}
""")

DEPTHWISE = Template("""
/* One input channel an output channel. */
static void depthwise_${from}_${w}_${to}(const struct convolution *c, const $x *x, $w *weights, $y *y)
{
    const struct window *k = &c->window;
    const int32_t each = c->out.channels / c->in.channels, size = k->rows * k->columns;
    int32_t o, row, column;

    for (o = 0; o < c->out.channels; ++o) {
        const int32_t channel = o / each;
        unpack_$w(c, (uint32_t)(o * size), (uint32_t)size, weights);
        for (row = 0; row < c->out.rows; ++row) {
            const int32_t top = row * k->stride_rows - k->pad_rows;
            int32_t row_first, row_end;
            inside(top, c->in.rows, k->rows, k->dilation_rows, &row_first, &row_end);
            for (column = 0; column < c->out.columns; ++column) {
                const int32_t left = column * k->stride_columns - k->pad_columns;
                int32_t first, end, i, j, sum = 0;
                inside(left, c->in.columns, k->columns, k->dilation_columns, &first, &end);
                for (i = row_first; i < row_end; ++i) {
                    const int32_t line = (top + i * k->dilation_rows) * c->in.columns + left;
                    for (j = first; j < end; ++j) {
                        sum += ($w)$load(x, (line + j * k->dilation_columns) * c->in.channels + channel)
                               * weights[i * k->columns + j];
                    }
                }
                $store(y, (row * c->out.columns + column) * c->out.channels + o,
                    ($number)requantise(&c->requantiser, o, sum));
            }
        }
    }
}
""")

AVERAGE_POOL = Template("""
static void average_pool_${from}_${to}(const struct map *in, const struct map *out, const struct window *k,
                                   const struct requantiser *r, int per_channel, const $x *x, $y *y)
{
    int32_t row, column, channel, to = 0;

    for (row = 0; row < out->rows; ++row) {
        const int32_t top = row * k->stride_rows - k->pad_rows;
        int32_t row_first, row_end;
        inside(top, in->rows, k->rows, 1, &row_first, &row_end);
        for (column = 0; column < out->columns; ++column) {
            const int32_t left = column * k->stride_columns - k->pad_columns;
            int32_t first, end;
            inside(left, in->columns, k->columns, 1, &first, &end);
            for (channel = 0; channel < out->channels; ++channel) {
                int32_t i, j, sum = 0;
                for (i = row_first; i < row_end; ++i) {
                    for (j = first; j < end; ++j) {
                        sum += $load(x, ((top + i) * in->columns + left + j) * in->channels + channel);
                    }
                }
                $store(y, to, ($number)requantise(r, per_channel ? channel : 0, sum));
                ++to;
            }
        }
    }
}
""")

MAX_POOL = Template("""
static void max_pool_${from}_$to(const struct map *in, const struct map *out, const struct window *k,
                                 const $x *x, $y *y)
{
    int32_t row, column, channel, to = 0;

    for (row = 0; row < out->rows; ++row) {
        const int32_t top = row * k->stride_rows - k->pad_rows;
        int32_t row_first, row_end;
        inside(top, in->rows, k->rows, 1, &row_first, &row_end);
        for (column = 0; column < out->columns; ++column) {
            const int32_t left = column * k->stride_columns - k->pad_columns;
            int32_t first, end;
            inside(left, in->columns, k->columns, 1, &first, &end);
            for (channel = 0; channel < out->channels; ++channel) {
                int32_t i, j;
                int32_t most = $load(x, ((top + row_first) * in->columns + left + first) * in->channels + channel);
                for (i = row_first; i < row_end; ++i) {
                    for (j = first; j < end; ++j) {
                        const int32_t here = $load(x, ((top + i) * in->columns + left + j) * in->channels + channel);
                        if (here > most) {
                            most = here;
                        }
                    }
                }
                $store(y, to, ($number)most);
                ++to;
            }
        }
    }
}
""")

SELECT = Template("""
static void select_${from}_$to(const struct map *in, const struct map *out, int32_t stride_rows, int32_t stride_columns,
                      int32_t before, const $x *x, $y *y)
{
    int32_t row, column, channel, to = 0;

    for (row = 0; row < out->rows; ++row) {
        for (column = 0; column < out->columns; ++column) {
            const int32_t from = (row * stride_rows * in->columns + column * stride_columns) * in->channels;
            for (channel = 0; channel < out->channels; ++channel) {
                const int32_t source = channel - before;
                $store(y, to, ($number)(source >= 0 && source < in->channels ? $load(x, from + source) : 0));
                ++to;
            }
        }
    }
}
""")

PLACE = Template("""
/* Write `count` channels of every pixel, from channel `to` of `channels` on. */
static void place_${from}_${to}(int32_t pixels, int32_t count, int32_t channels, int32_t to, int32_t multiplier,
                            const $x *x, $y *y)
{
    int32_t pixel, channel;

    for (pixel = 0; pixel < pixels; ++pixel) {
        for (channel = 0; channel < count; ++channel) {
            $store(y, pixel * channels + to + channel, ($number)(multiplier * $load(x, pixel * count + channel)));
        }
    }
}
""")
