"""Run policies on a G1, real or virtual.

deploy virtual
deploy adopt kick.onnx --spec controllers/policies/asap.json --clip kick.npz -o policy.onnx
deploy check policy.onnx --clips kick.npz
deploy run policy.onnx --clips kick.npz
deploy run policy.onnx --clips kick.npz --network.interface eth0 --network.domain 0 --network.on-robot
deploy monitor runs/deploy/2026-01-31_120000.mcap
deploy estop
deploy bench wire
deploy campaign policies --policies policy.onnx --clips kick.npz
deploy campaign specs --policies policy.onnx
deploy campaign nominal policy.onnx --clip kick.npz --minutes 30
deploy campaign faults --policies policy.onnx --clips kick.npz
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import tyro

COMMANDS = {
    # words: module, its configuration, the function that performs it
    "virtual": ("virtual_g1", "VirtualConfig", "virtual_command"),
    "adopt": ("adopt", "AdoptConfig", "adopt_command"),
    "check": ("check", "CheckConfig", "check_command"),
    "run": ("loop", "RunConfig", "run_command"),
    "monitor": ("monitor", "MonitorConfig", "monitor_command"),
    "estop": ("estop", "EstopConfig", "estop_command"),
    "bench wire": ("bench", "BenchWire", "bench_wire_command"),
    "campaign policies": ("campaign", "PoliciesConfig", "policies_command"),
    "campaign specs": ("campaign", "SpecsConfig", "specs_command"),
    "campaign nominal": ("nominal", "NominalConfig", "nominal_command"),
    "campaign faults": ("campaign", "FaultsConfig", "faults_command"),
}


def main() -> None:
    """The command `deploy`. Exit status 2 with one sentence for what the user can put right; 1 when a run tripped, a
    check found what would stop it, or a campaign failed."""
    try:
        perform, config = parse(sys.argv[1:])
        sys.exit(perform(config))
    except (ValueError, OSError) as error:
        print(f"deploy: {error}", file=sys.stderr)
        sys.exit(2)


def parse(words: list[str]) -> tuple[Callable[[Any], int | None], Any]:
    """What these words ask for, and its settings. Only the module that it needs is loaded: the robot's own computer has
    no simulator."""
    for length in (1, 2):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            module, config, perform = COMMANDS[name]
            loaded = importlib.import_module(f"deploy.{module}")
            return getattr(loaded, perform), tyro.cli(
                getattr(loaded, config), prog=f"deploy {name}", args=words[length:]
            )
    if words in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    raise ValueError(f"{' '.join(words[:2])!r} is no command; allowed: {', '.join(COMMANDS)}, each with --help")


if __name__ == "__main__":
    main()
