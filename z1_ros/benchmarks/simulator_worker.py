"""Worker of ``z1-bench sim``: steps an environment on request and measures the time.

It runs as a script in the Python that has the environment, so it imports nothing of z1_ros at the
top. Standard input: one JSON object per line, with robot, task, cameras, size [px] and steps.
Standard output: ``{"steps_per_s": …}`` for each request.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "0")

Run = Callable[[int], float]


def ours(robot: str, task: str, cameras: int, size: int) -> Run:
    """Return a function that runs n control steps of a simulator and returns their time [s].

    The scripted expert acts, so that doors, objects and fingers are in contact as in real use. The
    time of the expert and of resets is not counted.
    """
    from dataclasses import replace

    from z1_ros.sim.registry import find_simulator
    from z1_ros.specs import PANDA

    simulator = find_simulator(robot)
    seen = replace(PANDA, cameras=PANDA.cameras[:cameras])
    env = simulator.load().make_env(task, seen, size)
    seed = 0

    def run(steps: int) -> float:
        nonlocal seed
        spent, left, expert = 0.0, steps, None
        while left:
            if expert is None:
                env.reset(seed)
                seed, expert = seed + 1, simulator.make_expert(env)
                env.observe() if cameras else env.read_state()
            action = expert.act()[None]
            start = time.perf_counter()
            done = env.step(action).done
            env.observe() if cameras else env.read_state()
            spent += time.perf_counter() - start
            left -= 1
            expert = None if done else expert
        return spent

    return run


def lift(robot: str, task: str, cameras: int, size: int) -> Run:
    """Return such a function for robosuite's Lift with its Panda and default OSC_POSE controller.

    Actions are random; ``robot`` and ``task`` are not used.
    """
    import numpy as np
    import robosuite

    names = ["agentview", "robot0_eye_in_hand", "frontview"][:cameras]
    env = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=bool(names),
        use_camera_obs=bool(names),
        camera_names=names or "agentview",
        camera_heights=size,
        camera_widths=size,
        control_freq=20,
        ignore_done=True,
    )
    env.reset()
    rng = np.random.default_rng(0)

    def run(steps: int) -> float:
        actions = rng.uniform(-0.3, 0.3, (steps, env.action_dim))
        start = time.perf_counter()
        for action in actions:
            env.step(action)
        return time.perf_counter() - start

    return run


def serve(make: Callable[[str, str, int, int], Run]) -> None:
    """Reply to requests until standard input ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # robosuite prints to stdout; replies must not mix
    runs: dict[tuple[str, str, int, int], Run] = {}
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        key = (request["robot"], request["task"], request["cameras"], request["size"])
        if key not in runs:
            runs[key] = make(*key)
            runs[key](20)  # warm-up: caches, textures, numba
        rate = request["steps"] / runs[key](request["steps"])
        print(json.dumps({"steps_per_s": rate}), file=replies, flush=True)


if __name__ == "__main__":
    serve({"ours": ours, "lift": lift}[sys.argv[1]])
