"""Time per image of the C network on this machine: 8, 4, 3, 2 and 1-bit weights beside nnabla's float inference.

    python -m benchmarks.c99_speed [--blocks 3] [--images 50]

Prints one line a width: milliseconds an image, ratio to 8 bits, ratio to nnabla's float network, bytes. Repetitions of
all candidates take turns, and the fastest counts: other work on the machine makes times longer, never shorter.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import nnabla as nn
import numpy as np

from nnmpq.export.c99 import host
from nnmpq.export.c99.source import Source, source
from nnmpq.export.integer.lower import lower
from nnmpq.files import atomic_write
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models.resnet import resnet

WIDTHS = (8, 4, 3, 2, 1)
TURNS = 5
KINDS = ("input", "relu", "branch", "pool")
TIMER = """#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "network.h"
static uint8_t pixels[NETWORK_PIXELS];
static int32_t logits[NETWORK_CLASSES];
int main(int argc, char **argv)
{
    const int images = argc > 1 ? atoi(argv[1]) : 1;
    int i;
    clock_t start;
    for (i = 0; i < NETWORK_PIXELS; ++i) {
        pixels[i] = (uint8_t)(i * 31 % 256);
    }
    start = clock();
    for (i = 0; i < images; ++i) {
        network_run(pixels, logits);
    }
    printf("%.6f\\n", 1e3 * (double)(clock() - start) / CLOCKS_PER_SEC / images);
    return 0;
}
"""


def network(bits: int, blocks: int) -> Source:
    """Return the C text of a ResNet on 32x32 images with weights of so many bits and 8-bit activations."""
    nn.clear_parameters()
    x = nn.Variable((1, 3, 32, 32))
    y = resnet(x, 10, test=True, blocks=blocks, rng=np.random.RandomState(0))
    weight = SiteSettings("sign_mean" if bits == 1 else "uniform_b_xmax", bits)
    activation = SiteSettings("uniform_b_xmax", 8, step=2.0**-5)
    quantized = quantize(y, Parametric(weight=weight, activation=activation, kinds=KINDS))
    return source(lower(quantized, lambda pixels: (pixels.astype(np.float32) - 127.5) / np.float32(127.5)))


def build(made: Source, folder: Path, flags: tuple[str, ...]) -> Path:
    """Compile a network with the timer."""
    for name, text in (("network.h", made.header), ("network.c", made.code), ("timer.c", TIMER)):
        atomic_write(folder / name, text)
    compiler = host.compiler()
    if compiler is None:
        raise SystemExit("no C compiler is installed: cc, gcc or clang")
    files = [str(folder / "timer.c"), str(folder / "network.c")]
    subprocess.run([compiler, "-std=c99", *flags, *files, "-o", str(folder / "timer")], check=True, timeout=300)
    return folder / "timer"


def float_milliseconds(blocks: int, images: int) -> float:
    """Return nnabla's time for one image of the float network, one image a batch."""
    nn.clear_parameters()
    x = nn.Variable((1, 3, 32, 32))
    y = resnet(x, 10, test=True, blocks=blocks, rng=np.random.RandomState(0))
    x.d = 0
    y.forward(clear_buffer=True)
    start = time.process_time()
    for _ in range(images):
        y.forward(clear_buffer=True)
    return 1e3 * (time.process_time() - start) / images


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=3, help="blocks a stage; 3 is ResNet-20 (default %(default)s)")
    parser.add_argument("--images", type=int, default=20, help="images a turn (default %(default)s)")
    parser.add_argument("--flags", default="-O3", help="for the C compiler (default %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        made = {bits: network(bits, arguments.blocks) for bits in WIDTHS}
        timers = {b: build(m, Path(temporary) / str(b), tuple(arguments.flags.split())) for b, m in made.items()}
        best = dict.fromkeys(("float", *WIDTHS), float("inf"))
        for _ in range(TURNS):
            best["float"] = min(best["float"], float_milliseconds(arguments.blocks, arguments.images))
            for bits, timer in timers.items():
                command = [str(timer), str(arguments.images)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
                best[bits] = min(best[bits], float(done.stdout))
    print(f"ResNet-{6 * arguments.blocks + 2}, 32x32, {arguments.flags}; nnabla float: {best['float']:.2f} ms an image")
    print("weights   ms  / 8 bits  / float   weights  tables  memory, bytes")
    for bits in WIDTHS:
        ratios = f"{best[bits] / best[8]:8.2f}  {best[bits] / best['float']:7.2f}"
        sizes = f"{made[bits].weight_bytes:9,} {made[bits].table_bytes:7,} {made[bits].ram_bytes:7,}"
        print(f"{bits} bits {best[bits]:6.2f}  {ratios} {sizes}")


if __name__ == "__main__":
    main()
