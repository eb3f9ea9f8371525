"""How the benchmark talks to the processes that it times: lines in, one JSON object a line out.

A process says that it is ready, then answers each line that it reads: "step 3" by the seconds of three steps and the
loss of the last, "peak" by the most memory it has held, "quit" not at all. An error is an answer too, the last one.
Only the standard library is needed, by any Python 3.9 or later: the processes live in different interpreters.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

STATUS = "/proc/self/status"


class Unavailable(Exception):
    """This process cannot do what it was asked for, and says why; the others can go on."""


def memory_mib(field: str = "VmHWM") -> float:
    """Return the resident memory of this process in MiB, at its most ("VmHWM") or now ("VmRSS").

    Linux hands `ru_maxrss` down from the parent to the program that it starts, so that a small process would report
    its large parent; /proc does not. Elsewhere `ru_maxrss` is all there is.

    Example:
        >>> 0 < memory_mib("VmRSS") <= memory_mib()
        True
    """
    if os.path.exists(STATUS):
        with open(STATUS, encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines)
        return int(found[field].split()[0]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def answers_only() -> TextIO:
    """Return a stream to the standard output, and send what else is printed from now on to the standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _run(step: Callable[[], Any], count: int) -> dict[str, Any]:
    seconds, loss = [], math.nan
    for _ in range(count):
        start = time.perf_counter()
        result = step()
        seconds.append(time.perf_counter() - start)
        loss = float(result)
    if not math.isfinite(loss):
        raise ArithmeticError(f"the loss is {loss}")
    return {"seconds": seconds, "loss": loss}


def _answer(line: str, step: Callable[[], Any]) -> dict[str, Any]:
    words = line.split()
    if words == ["peak"]:
        return {"peak_mib": memory_mib()}
    if len(words) == 2 and words[0] == "step" and words[1].isdigit() and int(words[1]) > 0:
        return _run(step, int(words[1]))
    raise ValueError(f"{line.strip()!r}: 'step COUNT', 'peak' or 'quit' is needed")


def serve(prepare: Callable[[], Callable[[], Any]], lines: Iterable[str], answers: TextIO) -> int:
    """Prepare, then answer until "quit" or the end of the lines.

    Args:
        prepare: builds what is timed and returns its step, which returns the loss, a number.
        lines: requests.
        answers: takes one JSON object a line: first {"ready": true} or {"unavailable": reason}.

    Returns:
        The process' exit status, 1 after an error.

    Example:
        >>> import io
        >>> answers = io.StringIO()
        >>> serve(lambda: lambda: 0.5, ["step 2", "quit"], answers)
        0
        >>> [sorted(json.loads(line)) for line in answers.getvalue().splitlines()]
        [['imported_mib', 'ready'], ['loss', 'seconds']]
    """

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    imported = memory_mib("VmRSS")
    try:
        step = prepare()
        answer(ready=True, imported_mib=imported)
        for line in lines:
            if line.strip() == "quit":
                break
            answer(**_answer(line, step))
    except Unavailable as reason:
        answer(unavailable=str(reason))
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return 1
    return 0
