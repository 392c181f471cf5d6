"""How fast this machine carries the G1's messages: `deploy bench wire`.

One process sends states with a CRC at a fixed rate, another checks each, answers with a command that has one, and the
first measures how long the answer took.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np

from deploy.unitree_hg import LOW_COMMAND, LOW_STATE, new_command, new_state, sealed
from deploy.wire import LOW_COMMAND_TOPIC, LOW_STATE_TOPIC, Network, Participant, WireError

PATIENCE = 10.0  # [s] to find each other, and for the last answers


@dataclass(frozen=True)
class BenchWire:
    """Time states to another process and commands back, on this machine."""

    rate: float = 500.0
    """States per second."""
    seconds: float = 10.0
    """How long."""
    domain: int = 90
    """DDS domain on the loopback; nothing else should be in it."""
    newest_only: bool = False
    """Read as a controller does, newest message only; otherwise every message counts and is asked for again when it
    was lost."""


@dataclass(frozen=True)
class RoundTrips:
    """What was measured."""

    sent: int
    answered: int
    milliseconds: np.ndarray
    """Each answered round trip, (answered,)."""
    late: np.ndarray
    """How late the sender woke up for each state [ms], (sent,): what the machine adds."""
    core_share: float
    """Of one core, by the sending process."""

    def text(self) -> str:
        p50, p95, p99, worst = np.percentile(self.milliseconds, (50, 95, 99, 100))
        late50, late99, late_worst = np.percentile(self.late, (50, 99, 100))
        return (
            f"answered {self.answered} of {self.sent}\n"
            f"round trip [ms]: p50 {p50:.3f}, p95 {p95:.3f}, p99 {p99:.3f}, worst {worst:.3f}\n"
            f"sender woke late [ms]: p50 {late50:.3f}, p99 {late99:.3f}, worst {late_worst:.3f}\n"
            f"sender takes {100 * self.core_share:.0f} % of a core"
        )


def bench_wire_command(config: BenchWire) -> None:
    """Measure and print."""
    print(round_trips(config).text())


def round_trips(config: BenchWire) -> RoundTrips:
    """Start the other process, measure, end it."""
    if config.rate <= 0 or config.seconds <= 0:
        raise WireError(f"--rate {config.rate:g} and --seconds {config.seconds:g} must be positive")
    words = [sys.executable, "-m", "deploy.bench", str(config.domain), "newest" if config.newest_only else "all"]
    echo = subprocess.Popen(words, stdin=subprocess.PIPE)
    try:
        return _measure(config)
    finally:
        assert echo.stdin is not None
        echo.stdin.close()  # the sign to end
        echo.wait(PATIENCE)


def _measure(config: BenchWire) -> RoundTrips:
    participant = Participant(Network(domain=config.domain))
    states = participant.writer(LOW_STATE_TOPIC, LOW_STATE)
    commands = participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND, lossless=not config.newest_only)
    end = time.monotonic() + PATIENCE
    while not states.readers() or not commands.publishers():
        if time.monotonic() > end:
            raise WireError(f"the two processes do not find each other within {PATIENCE:g} s on the loopback")
        time.sleep(0.01)

    count = round(config.rate * config.seconds)
    sent_at, answered_at, late = np.zeros(count), np.full(count, np.nan), np.zeros(count)
    finished = threading.Event()

    def receive() -> None:
        while not finished.is_set():
            if commands.wait(0.1):
                for message in commands.take_all():
                    answered_at[message.data["reserve"][0]] = time.perf_counter()

    receiver = threading.Thread(target=receive)
    receiver.start()
    state, used, begin = new_state(), time.process_time(), time.perf_counter()
    for index in range(count):
        due = begin + index / config.rate
        time.sleep(max(due - time.perf_counter(), 0))
        state["tick"] = index
        sealed(state)
        sent_at[index] = time.perf_counter()
        late[index] = sent_at[index] - due
        states.write(state)
    core_share = (time.process_time() - used) / (time.perf_counter() - begin)
    end = time.monotonic() + 1.0
    while np.isnan(answered_at).any() and time.monotonic() < end:
        time.sleep(0.01)
    finished.set()
    receiver.join()
    participant.close()
    answered = ~np.isnan(answered_at)
    trips = 1e3 * (answered_at - sent_at)[answered]
    return RoundTrips(count, int(answered.sum()), trips, 1e3 * late, core_share)


def _echo(domain: int, lossless: bool) -> None:
    """Answer states until standard input ends."""
    participant = Participant(Network(domain=domain))
    states = participant.reader(LOW_STATE_TOPIC, LOW_STATE, lossless)
    commands = participant.writer(LOW_COMMAND_TOPIC, LOW_COMMAND)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    command = new_command()
    while not ended.is_set():
        if states.wait(0.1):
            for message in states.take_all():
                command["reserve"][0] = message.data["tick"]
                commands.write(sealed(command))
    participant.close()


if __name__ == "__main__":
    _echo(int(sys.argv[1]), lossless=sys.argv[2] == "all")
