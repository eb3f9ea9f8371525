"""What a search ran on, in words."""

from __future__ import annotations

import platform
from pathlib import Path

import nnabla as nn

from nnmpq.threads import threads
from nnmpq.training.machine import Machine

_CPU_INFO = Path("/proc/cpuinfo")


def processor(info: Path = _CPU_INFO) -> str:
    """Return the name of this machine's processor.

    Args:
        info: Linux' file about it; elsewhere the platform module says it less exactly.
    """
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def device(machine: Machine) -> str:
    """Return the device of nnabla's current context, with threads and processes.

    Args:
        machine: says how many processes.
    """
    context = nn.get_current_context()
    backend = context.backend[0].split(":")[0]
    if backend == "cpu":
        where = f"{processor()}, {threads()} threads" + ("" if machine.accelerate else ", not accelerated")
    else:
        where = f"{backend} {context.device_id}, {context.backend[0].split(':')[-1]}"
    return where if machine.communicator.size == 1 else f"{machine.communicator.size} processes on {where}"
