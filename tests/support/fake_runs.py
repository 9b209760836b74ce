"""Run folders as z1-train leaves them, from made-up numbers."""

import json
import math
from pathlib import Path

import numpy as np
import torch

from z1_ros.learning.core.run_log import CHECKPOINT, LOG
from z1_ros.models.checkpoint.loading import write_tensors
from z1_ros.sim.evaluation import wilson_interval


def write_run(
    folder: Path,
    task: str = "OpenDrawer",
    *,
    iterations: int = 61,
    first: float = 0.45,
    last: float = 0.85,
    eval_every: int = 10,
    seed: int = 0,
    n: int = 200,
) -> Path:
    """Write a run whose success rises from ``first`` to ``last``."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = []
    for i in range(iterations):
        rate = first + (last - first) * (1 - math.exp(-3 * i / iterations))
        record = {"iteration": float(i)}
        if i % eval_every == 0:
            successes = int(random.binomial(n, rate))
            interval = wilson_interval(successes, n)
            record |= {"eval_success": successes / n, "eval_n": n, "eval_ci95": list(interval)}
        record["train_success"] = random.binomial(128, max(0.0, rate - 0.15)) / 128
        record |= {
            "env_steps": 9000.0 * (i + 1),
            "elapsed_s": 50.0 * (i + 1),
            "group_filter_rate": 0.5,
        }
        lines.append(json.dumps(record))
    (folder / LOG).write_text("\n".join(lines) + "\n", "utf-8")
    facts = {"fingerprint": {"task": task, "seed": seed}}
    write_tensors(folder / CHECKPOINT, {"x": torch.zeros(1)}, facts)
    return folder
