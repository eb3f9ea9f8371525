"""The parts of the C files that are the same for every network."""

from __future__ import annotations

HEAD = """/* Written by nnmpq from the integer program of "{name}". C99, no library, no heap, no floating point. */
"""
HEADER = (
    HEAD
    + """#ifndef NETWORK_H
#define NETWORK_H

#include <stddef.h>
#include <stdint.h>

#define NETWORK_ROWS {rows}
#define NETWORK_COLUMNS {columns}
#define NETWORK_CHANNELS {channels}
#define NETWORK_PIXELS {pixels}
#define NETWORK_CLASSES {classes}
/* A logit is its number times 2^NETWORK_LOGIT_EXPONENT. */
#define NETWORK_LOGIT_EXPONENT ({exponent})

/*
 * Run one image. `pixels` holds rows of columns of channels, values 0 to {largest}; `logits` takes NETWORK_CLASSES
 * numbers. Buffers are static: one call at a time.
 */
void network_run(const uint8_t *pixels, int32_t *logits);

/* Return the place of the largest logit, the first one of equals. */
int network_class(const int32_t *logits);

#ifdef NETWORK_TRACE
/* Called after every operation, where the network is compiled with NETWORK_TRACE: what it wrote. */
void network_trace(const void *numbers, size_t bytes);
#endif

#endif
"""
)
TYPES = """
struct requantiser {
    const int32_t *multiplier;
    const int64_t *bias;
    const uint8_t *shift;
    const int64_t *edges;         /* NULL: uniform levels */
    const int32_t *values;
    const uint16_t *first;        /* NULL: no exceptions */
    const int32_t *exception;
    const int8_t *correction;
    int32_t low;
    uint32_t top;
};

struct map {
    int32_t rows, columns, channels;
};

struct window {
    int32_t rows, columns, stride_rows, stride_columns, pad_rows, pad_columns, dilation_rows, dilation_columns;
};

struct convolution {
    struct map in, out;
    struct window window;
    int32_t group;
    uint32_t bits;
    int32_t base, scale;          /* weight = base + scale * index, where numbers is NULL */
    const int32_t *numbers;
    const uint8_t *weights;
    struct requantiser requantiser;
};
"""
TAIL = """
int network_class(const int32_t *logits)
{{
    int best = 0, i;

    for (i = 1; i < NETWORK_CLASSES; ++i) {{
        if (logits[i] > logits[best]) {{
            best = i;
        }}
    }}
    return best;
}}

void network_run(const uint8_t *pixels, int32_t *logits)
{{
{calls}}}
"""
