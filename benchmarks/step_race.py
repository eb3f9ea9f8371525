"""One race of the step-time benchmark: its processes are started, take turns, and end."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from benchmarks.line_protocol import Unavailable
from benchmarks.peer_process import Peer, PeerError
from benchmarks.round_robin import take_turns
from benchmarks.step_contenders import PLAIN, TORCH, Contender, Race

# Seconds that a process may take to build, compile and run a first step, and that a turn may take.
READY_LIMIT, TURN_LIMIT = 400.0, 300.0


@attrs.frozen
class Memory:
    """What a process has held, in MiB: after its imports, and at most."""

    imported: float
    peak: float


@attrs.frozen
class Result:
    """What came out of a race.

    Args:
        race: what was trained.
        seconds: seconds a step by round, of every contender that took part.
        memory: of every contender that took part.
        absent: why the others did not.
    """

    race: Race
    seconds: Mapping[Contender, Mapping[int, float]]
    memory: Mapping[Contender, Memory]
    absent: Mapping[Contender, str]


@attrs.frozen
class Effort:
    """How long a race is.

    Args:
        rounds: number of rounds.
        steps: steps of a turn; the median of their times is the round's.
        plain_rounds: rounds that plain nnabla takes part in, with one step each: it is slow.
    """

    rounds: int
    steps: int
    plain_rounds: int


def started(
    race: Race, contenders: Sequence[Contender], torch_python: str | None, stack: contextlib.ExitStack
) -> tuple[dict[Contender, Peer], dict[Contender, str]]:
    """Start a process for each contender and wait until all are ready.

    Args:
        race: what they train.
        contenders: all of them.
        torch_python: interpreter that has PyTorch; None where there is none.
        stack: ends the processes.

    Returns:
        The processes, and the reasons of those that cannot take part.
    """
    peers: dict[Contender, Peer] = {}
    absent: dict[Contender, str] = {}
    for contender in contenders:
        if contender.library == TORCH and torch_python is None:
            absent[contender] = "no interpreter with PyTorch was named: --torch-python"
            continue
        try:
            peers[contender] = stack.enter_context(Peer(contender.command(race, torch_python or ""), contender.threads))
        except PeerError as error:
            absent[contender] = str(error)
    for contender, peer in list(peers.items()):
        try:
            peer.wait_until_ready(READY_LIMIT)
        except (Unavailable, PeerError) as error:
            absent[contender] = str(error)
            peers.pop(contender).close()
    return peers, absent


def run(
    race: Race,
    contenders: Sequence[Contender],
    effort: Effort,
    torch_python: str | None,
    say: Callable[[str], None] = print,
) -> Result:
    """Run a race.

    Raises:
        PeerError: a process that was ready failed later.
    """
    with contextlib.ExitStack() as stack:
        begin = time.monotonic()
        peers, absent = started(race, contenders, torch_python, stack)
        say(f"{race.network} {race.kind}: {len(peers)} processes ready in {time.monotonic() - begin:.0f} s")
        turns, limits = {}, {}
        for contender, peer in peers.items():
            plain = contender.library == PLAIN
            turns[contender.name] = functools.partial(peer.steps, 1 if plain else effort.steps, TURN_LIMIT)
            if plain:
                limits[contender.name] = effort.plain_rounds
        times = take_turns(turns, effort.rounds, limits) if turns else {}
        memory = {c: Memory(peer.ready["imported_mib"], peer.peak_mib()) for c, peer in peers.items()}
    return Result(race, {c: times[c.name] for c in peers}, memory, absent)
