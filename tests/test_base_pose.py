"""Poses from motion capture: what is taken, when it came, and what is refused."""

from __future__ import annotations

import socket
import struct
import time

import numpy as np
import pytest

from deploy.base_pose import DATAGRAM, BasePoseError, PoseReceiver, PoseSender, address_of

POSE = {
    "position": np.array([1.0, 2.0, 0.79]),
    "quaternion": np.array([0.6, 0.0, 0.0, 0.8]),
    "linear_velocity": np.array([0.1, 0.2, 0.3]),
    "angular_velocity": np.full(3, np.nan),  # not known
}


def address() -> str:
    """A port that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_poses_arrive_in_order_with_the_time_at_which_the_system_received_them() -> None:
    where = address()
    receiver, sender = PoseReceiver(where), PoseSender(where)
    assert receiver.take_all() == []
    time.sleep(0.1)  # Linux begins to stamp a moment after it is asked to
    began = time.time_ns()
    sender.send(5, POSE)
    between = time.time_ns()
    sender.send(7, POSE)
    end = time.time_ns()
    time.sleep(0.05)  # being taken late does not make them late
    (first, first_at), (second, second_at) = receiver.take_all()
    assert (int(first["time"]), int(second["time"])) == (5, 7)
    assert began <= first_at <= between <= second_at <= end
    for name, value in POSE.items():
        np.testing.assert_array_equal(first[name], value)
    receiver.close()
    sender.close()


def test_a_datagram_is_what_the_documentation_says_so_that_any_language_can_send_it() -> None:
    where = address()
    receiver = PoseReceiver(where)
    data = struct.pack("<q13d", 9, 1, 2, 3, 1, 0, 0, 0, 4, 5, 6, 7, 8, 9)
    assert len(data) == DATAGRAM.itemsize == 112
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(data, address_of(where))
        for wrong in (data[:-1], data + b"x", struct.pack("<q13d", 9, 1, 2, 3, 2, 0, 0, 0, 4, 5, 6, 7, 8, 9),
                      struct.pack("<q13d", 9, 1, np.nan, 3, 1, 0, 0, 0, 4, 5, 6, 7, 8, 9)):  # fmt: skip
            other.sendto(wrong, address_of(where))
    ((pose, _),) = receiver.take_all()
    assert pose["position"].tolist() == [1, 2, 3] and pose["angular_velocity"].tolist() == [7, 8, 9]
    assert (receiver.received, receiver.refused) == (1, 4)
    receiver.close()


@pytest.mark.parametrize("text", ["9870", "localhost", "localhost:0", "localhost:70000", "a:b"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BasePoseError, match="allowed: HOST:PORT"):
        PoseReceiver(text)


def test_a_port_that_is_taken_is_named() -> None:
    where = address()
    receiver = PoseReceiver(where)
    with pytest.raises(BasePoseError, match=f"cannot be received at {where}: Address already in use"):
        PoseReceiver(where)
    receiver.close()
