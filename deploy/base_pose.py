"""Where the pelvis is, from whoever measures it: motion capture, odometry, the virtual G1. One UDP datagram per pose.

A robot does not say where it is, so a recording knows it only if somebody sends it here. UDP and not DDS: a new type in
the robot's domain would have to be understood by the robot's programs. A sender is three lines of any language; a
datagram is 112 bytes, little-endian: int64 time of the measurement [ns, Unix], then 13 float64: position in the world
[m], attitude wxyz (body to world), linear velocity in the world [m/s], angular velocity in the body frame [rad/s]. A
source that does not know a velocity sends NaN for it.

    deploy virtual --base-pose 127.0.0.1:9870
    deploy run ... --base-pose 127.0.0.1:9870
"""

from __future__ import annotations

import socket
import time

import numpy as np

from controllers import safety

DATAGRAM = np.dtype(
    [
        ("time", "<i8"),
        ("position", "<f8", (3,)),
        ("quaternion", "<f8", (4,)),
        ("linear_velocity", "<f8", (3,)),
        ("angular_velocity", "<f8", (3,)),
    ]
)
LENGTH_TOLERANCE = 0.01  # of the quaternion
SO_TIMESTAMPNS = 35  # of Linux; the socket module does not name it: the system stamps what it receives


class BasePoseError(ValueError):
    """Poses cannot be received or sent as asked."""


def address_of(text: str) -> tuple[str, int]:
    """Host and port of text such as `127.0.0.1:9870`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BasePoseError(f"base pose address is {text!r}; allowed: HOST:PORT, such as 127.0.0.1:9870")
    return host, int(port)


class PoseReceiver:
    """Takes poses as they come, never waits."""

    def __init__(self, address: str) -> None:
        """
        Args:
            address: HOST:PORT of this computer.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)
        try:
            self._socket.bind(address_of(address))
        except OSError as error:
            self._socket.close()
            raise BasePoseError(f"base poses cannot be received at {address}: {error.strerror or error}") from error
        self.received = 0
        """Good ones."""
        self.refused = 0
        """Datagrams of another size, and poses that are none."""

    def take_all(self) -> list[tuple[np.ndarray, int]]:
        """Every pose not taken yet, oldest first: DATAGRAM of shape (), and when it was received [ns, Unix]."""
        taken = []
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(DATAGRAM.itemsize + 1, 64)
            except BlockingIOError:
                return taken
            pose = np.frombuffer(data, DATAGRAM)[0] if len(data) == DATAGRAM.itemsize else None
            if pose is None or not _sound(pose):
                self.refused += 1
                continue
            self.received += 1
            taken.append((pose, _received_at(ancillary)))

    def close(self) -> None:
        self._socket.close()


def _sound(pose: np.ndarray) -> bool:
    """Whether place and attitude are such."""
    finite = safety.not_finite(pose["position"], pose["quaternion"]) == 0
    return finite and safety.quaternion_length(pose["quaternion"]) <= LENGTH_TOLERANCE


def _received_at(ancillary: list) -> int:
    """By the system's stamp [ns]."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = np.frombuffer(data, "<i8", 2)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


class PoseSender:
    """Sends poses; nobody needs to listen."""

    def __init__(self, address: str) -> None:
        """
        Args:
            address: HOST:PORT of the receiver.
        """
        self._to = address_of(address)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, time_ns: int, truth: dict[str, np.ndarray]) -> None:
        """One pose, from arrays named as in DATAGRAM."""
        pose = np.zeros((), DATAGRAM)
        pose["time"] = time_ns
        for name in DATAGRAM.names[1:]:  # type: ignore[index]
            pose[name] = truth[name]
        self._socket.sendto(pose.tobytes(), self._to)

    def close(self) -> None:
        self._socket.close()
