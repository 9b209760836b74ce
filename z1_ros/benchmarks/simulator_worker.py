"""One side of ``z1-bench sim``: steps an environment when told to and says how long it took.

Runs as a script in whichever Python has the environment, so it imports nothing of ours at the
top. Standard input: one JSON object per line, ``{"cameras": 3, "size": 224, "steps": 200}``;
standard output: ``{"steps_per_s": …}`` for each.
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


def kitchen(cameras: int, size: int, task: str) -> Run:
    """Return a function that makes n control steps of the kitchen and returns their time [s].

    The scripted expert acts, so that doors, objects and fingers are in contact as in real use;
    its own time and the resets are not counted.
    """
    from dataclasses import replace

    from z1_ros.sim.kitchen import KitchenConfig, KitchenEnv, make_expert
    from z1_ros.specs import PANDA

    robot = replace(PANDA, cameras=PANDA.cameras[:cameras])
    env = KitchenEnv(task, robot, KitchenConfig(image_size=size))
    seed = 0

    def run(steps: int) -> float:
        nonlocal seed
        spent, left, expert = 0.0, steps, None
        while left:
            if expert is None:
                env.reset(seed)
                seed, expert = seed + 1, make_expert(env)
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


def lift(cameras: int, size: int, task: str) -> Run:
    """Return the same for robosuite's Lift with its Panda and default OSC_POSE controller."""
    del task
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


def serve(make: Callable[[int, int, str], Run]) -> None:
    """Answer requests until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # robosuite prints: keep the answers apart
    runs: dict[tuple[int, int, str], Run] = {}
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        key = (asked["cameras"], asked["size"], asked["task"])
        if key not in runs:
            runs[key] = make(*key)
            runs[key](20)  # warm up: caches, textures, numba
        rate = asked["steps"] / runs[key](asked["steps"])
        print(json.dumps({"steps_per_s": rate}), file=answers, flush=True)


if __name__ == "__main__":
    serve({"kitchen": kitchen, "lift": lift}[sys.argv[1]])
