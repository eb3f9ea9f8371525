"""One process that trains when it is told to: started, asked and ended from here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.line_protocol import Unavailable

ROOT = Path(__file__).resolve().parents[1]
POOLS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class PeerError(RuntimeError):
    """A process answered with an error, ended, or took too long."""


def environment(threads: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process with so many threads.

    They wait as their library does by default, spinning for some milliseconds and then asleep: told to sleep at once,
    they would need longer to wake at each of a step's hundreds of meetings than most of those take.

    Example:
        >>> environment(2, {"HOME": "/"})["OMP_NUM_THREADS"]
        '2'
    """
    chosen = {"OMP_DYNAMIC": "false", "PYTHONPATH": str(ROOT)}
    return {**inherited, **{name: str(threads) for name in POOLS}, **chosen}


class Peer:
    r"""A process that serves `benchmarks.line_protocol`.

    Args:
        command: program and arguments.
        threads: of each of its thread pools, from its start on.

    Example:
        >>> import sys
        >>> program = "import sys; from benchmarks.line_protocol import serve; " \
        ...     "serve(lambda: lambda: 0.25, sys.stdin, sys.stdout)"
        >>> with Peer([sys.executable, "-c", program], threads=1) as peer:
        ...     peer.wait_until_ready(60)["ready"], len(peer.steps(3, 60))
        (True, 3)
    """

    def __init__(self, command: Sequence[str], threads: int) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()
        self._rest = b""
        self.ready: dict[str, Any] = {}
        try:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=environment(threads, os.environ),
                cwd=ROOT,
                bufsize=0,
            )
        except OSError as error:
            self._said.close()
            raise PeerError(f"{command[0]} does not start: {error}") from error

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-5:])

    def _line(self, limit: float) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + limit
        while b"\n" not in self._rest:
            if not select.select([self.process.stdout], [], [], max(end - time.monotonic(), 0.0))[0]:
                raise PeerError(f"no answer in {limit:g} s: {self._last_words()}")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise PeerError(f"the process ended with status {self.process.wait(limit)}: {self._last_words()}")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _answer(self, limit: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line(limit))
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def ask(self, line: str, limit: float) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises:
            PeerError: there is none within `limit` seconds, or it is an error.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            pass  # it has ended; what it said last is waiting to be read
        return self._answer(limit)

    def wait_until_ready(self, limit: float) -> dict[str, Any]:
        """Wait for the first answer, and keep it in `ready`.

        Raises:
            PeerError: it is an error, or there is none within `limit` seconds.
            Unavailable: the process cannot do what it was started for.
        """
        self.ready = self._answer(limit)
        return self.ready

    def steps(self, count: int, limit: float) -> list[float]:
        """Return the seconds of so many steps."""
        return [float(second) for second in self.ask(f"step {count}", limit)["seconds"]]

    def peak_mib(self, limit: float = 60.0) -> float:
        """Return the most memory that the process has held, in MiB."""
        return float(self.ask("peak", limit)["peak_mib"])

    def close(self) -> None:
        """End the process; it is killed where it does not end by itself."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.close()
