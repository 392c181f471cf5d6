"""How long mjlab's tracking task of the G1 takes for some control steps on the CPU. Runs in mjlab's own environment:

    python mjlab_rate.py ROBOTS STEPS MOTION.npz

It prints one line of JSON, and imports nothing of ours. Written for mjlab 1.6.
"""

# pyright: reportMissingImports=false
# (mjlab cannot share an environment with MuJoCo 4)

import json
import sys
import time

import mjlab  # named first, so that its absence is what is reported
import mjlab.tasks
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg

TASK = "Mjlab-Tracking-Flat-Unitree-G1"


def main() -> None:
    robots, steps, motion = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.manual_seed(0)
    config = load_env_cfg(TASK)
    config.scene.num_envs = robots
    config.commands["motion"].motion_file = motion
    environment = ManagerBasedRlEnv(config, device="cpu")
    environment.reset()
    actions = 0.3 * torch.randn(steps, robots, environment.action_manager.total_action_dim)
    environment.step(actions[0])  # compiles
    start = time.perf_counter()
    for action in actions:
        environment.step(action)
    print(json.dumps({"seconds": time.perf_counter() - start, "mjlab": getattr(mjlab, "__version__", "unknown")}))


if __name__ == "__main__":
    main()
