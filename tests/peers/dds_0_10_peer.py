"""A program as on the robot: CycloneDDS 0.10.2 and the vendor's generated types, in a Python of its own.

    python dds_0_10_peer.py DOMAIN COUNT

It answers states with commands, in the stock serialiser, until it has COUNT of them, and prints how many there were and
the last tick. Its types come from the wheel unitree-sdk2, whose package cannot be imported whole: it forgets a part.
"""

from __future__ import annotations

import importlib.util
import struct
import sys
import time
import types
from typing import Any

from cyclonedds.domain import Domain, DomainParticipant  # type: ignore[import-untyped]
from cyclonedds.pub import DataWriter  # type: ignore[import-untyped]
from cyclonedds.sub import DataReader  # type: ignore[import-untyped]
from cyclonedds.topic import Topic  # type: ignore[import-untyped]

CONFIGURATION = """<CycloneDDS><Domain Id="any"><General><Interfaces>
<NetworkInterface name="lo" priority="default" multicast="default"/>
</Interfaces></General></Domain></CycloneDDS>"""  # as the vendor's package configures it for an interface


def crc(command: Any) -> int:
    """The polynomial division, bit for bit, over the words of the C structure."""
    motors = [(m.mode, m.q, m.dq, m.tau, m.kp, m.kd, m.reserve) for m in command.motor_cmd]
    packed = struct.pack("<BB2x", command.mode_pr, command.mode_machine)
    packed += b"".join(struct.pack("<B3x5fI", *motor) for motor in motors) + struct.pack("<4I", *command.reserve)
    remainder = 0xFFFFFFFF
    for (word,) in struct.iter_unpack("<I", packed):
        for bit in range(31, -1, -1):
            carry = remainder >> 31 ^ (word >> bit & 1)
            remainder = (remainder << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if carry else 0)
    return remainder


def main() -> None:
    domain, count = int(sys.argv[1]), int(sys.argv[2])
    found = importlib.util.find_spec("unitree_sdk2py")
    assert found is not None and found.submodule_search_locations is not None
    package = types.ModuleType("unitree_sdk2py")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["unitree_sdk2py"] = package
    from unitree_sdk2py.idl.default import unitree_hg_msg_dds__LowCmd_  # type: ignore[import-not-found]
    from unitree_sdk2py.idl.unitree_hg.msg.dds_ import LowCmd_, LowState_  # type: ignore[import-not-found]

    configured = Domain(domain, CONFIGURATION)
    participant = DomainParticipant(domain)
    states = DataReader(participant, Topic(participant, "rt/lowstate", LowState_))
    commands = DataWriter(participant, Topic(participant, "rt/lowcmd", LowCmd_))
    print("ready", flush=True)
    heard, tick, command = 0, 0, unitree_hg_msg_dds__LowCmd_()
    while heard < count:
        for state in states.take(10):
            if not state.sample_info.valid_data:
                continue
            heard, tick = heard + 1, state.tick
            command.reserve[0] = tick
            command.motor_cmd[3].q = state.motor_state[3].q
            command.crc = crc(command)
            commands.write(command)
        time.sleep(0.001)
    print(heard, tick, flush=True)
    time.sleep(0.5)  # the last commands are on their way
    del configured


if __name__ == "__main__":
    main()
