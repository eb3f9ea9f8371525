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
