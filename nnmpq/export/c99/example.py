"""What is handed over beside the C network: an example `main`, test vectors and a Makefile."""

from __future__ import annotations

import numpy as np

from nnmpq.export.c99.tables import table
from nnmpq.export.integer import interpret
from nnmpq.export.integer.program import Program
from nnmpq.export.integer.saved import as_saved

MAIN = """/* Runs the test vectors: exit status 0 where every logit is the reference's. */
#include <stdio.h>

#include "network.h"
#include "vectors.h"

int main(void)
{
    int32_t logits[NETWORK_CLASSES];
    long differing = 0;
    int i, k;

    for (i = 0; i < VECTORS; ++i) {
        network_run(vector_pixels + (size_t)i * NETWORK_PIXELS, logits);
        for (k = 0; k < NETWORK_CLASSES; ++k) {
            differing += logits[k] != vector_logits[i * NETWORK_CLASSES + k];
        }
        printf("vector %d: class %d\\n", i, network_class(logits));
    }
    printf("%ld of %d logits differ\\n", differing, VECTORS * NETWORK_CLASSES);
    return differing != 0;
}
"""
# Reads images from the standard input and writes all tensors of each to the standard output; for the host alone.
TRACER = """/* Images in, every tensor out; the network is compiled with NETWORK_TRACE. */
#include <stdio.h>

#include "network.h"

static uint8_t pixels[NETWORK_PIXELS];
static int32_t logits[NETWORK_CLASSES];

void network_trace(const void *numbers, size_t bytes)
{
    fwrite(numbers, 1, bytes, stdout);
}

int main(void)
{
    while (fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels) {
        network_run(pixels, logits);
    }
    return ferror(stdout) != 0;
}
"""
MAKEFILE = """# make test: compile for this machine and run the test vectors.
# Cross: make CC=arm-none-eabi-gcc CFLAGS="-mcpu=cortex-m4 -mthumb -Os -ffunction-sections" network.o
CC ?= cc
CFLAGS ?= -O3
CHECKS = -std=c99 -Wall -Wextra -pedantic -Werror

.PHONY: test clean
test: example
\t./example

example: main.o network.o
\t$(CC) $(CFLAGS) -o $@ main.o network.o

%.o: %.c network.h vectors.h
\t$(CC) $(CHECKS) $(CFLAGS) -c -o $@ $<

clean:
\trm -f example main.o network.o
"""


def channels_last(images: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) as the C network takes them, uint8 (N, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.uint8)


def vectors(program: Program, images: np.ndarray) -> str:
    """Return the header with test images and the reference's logits of them.

    Args:
        program: the integer program.
        images: uint8, shape (N, C, H, W).
    """
    logits = interpret.run(as_saved(program), images)[program.output].reshape(len(images), -1)
    return (
        f"#ifndef VECTORS_H\n#define VECTORS_H\n\n#include <stdint.h>\n\n#define VECTORS {len(images)}\n\n"
        + table("uint8_t", "vector_pixels", channels_last(images))
        + table("int32_t", "vector_logits", logits)
        + "\n#endif\n"
    )
