"""Snapshots of the kitchen: bit-exact here and in another process, refused anywhere else."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from z1_ros.errors import SnapshotMismatch
from z1_ros.sim.kitchen import TASKS, KitchenConfig, KitchenEnv, make_expert
from z1_ros.sim.snapshot import pack, unpack
from z1_ros.specs import PANDA_OMRON

SMALL = KitchenConfig(image_size=48)


def mid_episode(task: str, seed: int = 5, steps: int = 30) -> KitchenEnv:
    env = KitchenEnv(task, config=SMALL)
    env.reset(seed)
    expert = make_expert(env)
    for _ in range(steps):
        env.step(expert.act()[None])
    return env


def trace(env: KitchenEnv, steps: int = 12) -> list[str]:
    """Return a digest of physics, result and pictures after each of some random steps."""
    rng, digests = np.random.default_rng(1), []
    for _ in range(steps):
        step = env.step(rng.uniform(-0.6, 0.6, (1, env.embodiment.action_dim)))
        seen = env.observe()
        parts = [env.data.qpos.tobytes(), env.data.qvel.tobytes(), str(step).encode()]
        parts += [seen.images[c].tobytes() for c in env.embodiment.cameras]
        parts += [seen.state[f.name].tobytes() for f in env.embodiment.state]
        digests.append(hashlib.sha256(b"".join(parts)).hexdigest())
    return digests


@pytest.mark.parametrize("task", sorted(TASKS))
def test_replay_is_bit_exact_in_this_and_another_process(task, tmp_path):
    """Physics, results and pictures after a restore equal those of the first run."""
    env = mid_episode(task)
    data, seen = env.snapshot(), env.observe()
    first = trace(env)
    env.step(np.ones((7, 7)))
    env.restore(data)
    again = env.observe()
    assert all(np.array_equal(seen.images[c], again.images[c]) for c in seen.images)
    assert (again.stamp_ns, again.instruction) == (seen.stamp_ns, seen.instruction)
    assert env.snapshot() == data
    assert trace(env) == first
    env.close()
    path = tmp_path / "snapshot"
    path.write_bytes(data)
    run = subprocess.run(
        [sys.executable, __file__, task, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert json.loads(run.stdout) == first


def test_mobile_robot_replays_exactly_while_driving():
    env = KitchenEnv("OpenDrawer", PANDA_OMRON, SMALL)
    env.reset(3)
    drive = np.zeros((6, 12))
    drive[:, 7:] = (1, 0.3, 0.5, 1, 1)
    env.step(drive)
    data = env.snapshot()
    env.step(drive)
    first = env.data.qpos.copy()
    env.restore(data)
    env.step(drive)
    assert np.array_equal(env.data.qpos, first)


def test_every_part_of_a_snapshot_matters():
    """Without the controller's memory or the task's flags the replay differs."""
    env = mid_episode("PnPCounterToSink")
    facts, arrays = unpack(env.snapshot())
    env.step(np.full((5, 7), 0.3))
    end = env.data.qpos.copy()
    for name in ("mujoco", "controller"):
        changed = arrays | {name: arrays[name] * 1.0}
        changed[name][-1 if name == "controller" else 3] += 0.01
        env.restore(pack(facts, changed))
        env.step(np.full((5, 7), 0.3))
        assert not np.array_equal(env.data.qpos, end), name
    env = mid_episode("TurnOnMicrowave", steps=0)
    facts, arrays = unpack(env.snapshot())
    env.restore(pack(facts | {"flags": {"microwave": True}}, arrays))
    assert env.step(np.zeros((1, 7))).success
    env.restore(pack(facts, arrays))
    assert not env.step(np.zeros((1, 7))).success


def test_restore_builds_the_scene_it_needs():
    env = mid_episode("OpenDrawer", seed=5)
    data, told, scene = env.snapshot(), env.instruction, env.scene_id
    first = trace(env, steps=3)
    fresh = KitchenEnv("OpenDrawer", config=SMALL)
    fresh.restore(data)
    assert (fresh.instruction, fresh.scene_id) == (told, scene)
    assert trace(fresh, steps=3) == first
    env.reset(6)
    env.restore(data)
    assert env.scene_id == scene


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (KitchenEnv("TurnOnMicrowave", config=SMALL), "task"),
        (KitchenEnv("OpenDrawer"), "config"),
        (KitchenEnv("OpenDrawer", PANDA_OMRON, SMALL), "embodiment"),
    ],
    ids=["task", "config", "embodiment"],
)
def test_snapshots_of_something_else_are_refused_by_name(other, named):
    data = mid_episode("OpenDrawer", steps=1).snapshot()
    other.reset(5)
    before = other.snapshot()
    with pytest.raises(SnapshotMismatch, match=named):
        other.restore(data)
    assert other.snapshot() == before


@pytest.mark.parametrize("fact", ["backend", "mujoco", "version", "scene_id"])
def test_other_versions_and_backends_are_refused(fact):
    env = mid_episode("OpenDrawer", steps=1)
    facts, arrays = unpack(env.snapshot())
    before = env.snapshot()
    with pytest.raises(SnapshotMismatch, match=fact):
        env.restore(pack(facts | {fact: "other"}, arrays))
    assert env.snapshot() == before


@pytest.mark.parametrize("at", [0, 6, 40, 900, -1])
def test_damaged_bytes_are_refused(at):
    env = mid_episode("OpenDrawer", steps=1)
    data = bytearray(env.snapshot())
    data[at] ^= 1
    with pytest.raises(SnapshotMismatch):
        env.restore(bytes(data))
    for cut in (b"", bytes(data[:20]), env.snapshot()[:-8]):
        with pytest.raises(SnapshotMismatch):
            env.restore(cut)


def test_snapshots_are_small():
    assert len(mid_episode("PnPCounterToSink", steps=2).snapshot()) < 8_000


if __name__ == "__main__":
    task, path = sys.argv[1:]
    kitchen = KitchenEnv(task, config=SMALL)
    with open(path, "rb") as file:  # noqa: PTH123
        kitchen.restore(file.read())
    print(json.dumps(trace(kitchen)))
