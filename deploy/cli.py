"""Run policies on a G1, real or virtual.

deploy virtual
deploy adopt kick.onnx --spec controllers/policies/asap.json --clip kick.npz -o policy.onnx
deploy check policy.onnx --clips kick.npz
deploy run policy.onnx --clips kick.npz
deploy run policy.onnx --clips kick.npz --network.interface eth0 --network.domain 0 --network.on-robot
deploy monitor runs/deploy/2026-01-31_120000.mcap
deploy estop
deploy bench wire
deploy campaign specs --policies policy.onnx
deploy campaign faults --policies policy.onnx --clips kick.npz
"""

from __future__ import annotations

import sys
from typing import Any

import tyro


def main() -> None:
    """The command `deploy`. Exit status 2 with one sentence for what the user can put right; 1 when a run tripped."""
    try:
        sys.exit(_perform(sys.argv[1:]))
    except (ValueError, OSError) as error:
        print(f"deploy: {error}", file=sys.stderr)
        sys.exit(2)


def _perform(words: list[str]) -> int:
    """Each command's module is loaded by that command only: the robot's computer has no simulator."""
    group, rest = words[:1], words[1:]
    if group == ["virtual"]:
        from deploy.virtual_g1 import VirtualConfig, virtual_command

        virtual_command(_parse("virtual", VirtualConfig, rest))
    elif group == ["run"]:
        from deploy.loop import RunConfig, run_command

        ended = run_command(_parse("run", RunConfig, rest))
        print(f"{ended.recording}: {ended.records}")
        return 1 if ended.tripped else 0
    elif group == ["check"]:
        from deploy.check import CheckConfig, check_command

        return check_command(_parse("check", CheckConfig, rest))
    elif group == ["adopt"]:
        from deploy.adopt import AdoptConfig, adopt_command

        print(adopt_command(_parse("adopt", AdoptConfig, rest)))
    elif group == ["estop"]:
        from deploy.estop import EstopConfig, estop_command

        estop_command(_parse("estop", EstopConfig, rest))
    elif group == ["monitor"]:
        from deploy.monitor import MonitorConfig, monitor_command

        monitor_command(_parse("monitor", MonitorConfig, rest))
    elif words[:2] == ["bench", "wire"]:
        from deploy.bench import BenchWire, bench_wire_command

        bench_wire_command(_parse("bench wire", BenchWire, rest[1:]))
    elif words[:2] == ["campaign", "specs"]:
        from deploy.campaign import SpecsConfig, specs_command

        return specs_command(_parse("campaign specs", SpecsConfig, rest[1:]))
    elif words[:2] == ["campaign", "faults"]:
        from deploy.campaign import FaultsConfig, faults_command

        return faults_command(_parse("campaign faults", FaultsConfig, rest[1:]))
    elif words[:2] == ["campaign", "policies"]:
        from deploy.campaign import PoliciesConfig, policies_command

        return policies_command(_parse("campaign policies", PoliciesConfig, rest[1:]))
    else:
        print(__doc__)
        if words and words not in (["-h"], ["--help"]):
            raise ValueError(f"{' '.join(words[:2])!r} is no command; allowed: those above, each with --help")
    return 0


def _parse(name: str, config: Any, words: list[str]) -> Any:
    return tyro.cli(config, prog=f"deploy {name}", args=words)


if __name__ == "__main__":
    main()
