"""Demonstrations: reproducible, resumable, honest about failures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.reach_env import ReachEnv, ReachExpert

from z1_ros.errors import ConfigError, SeedError
from z1_ros.learning.sft import demos
from z1_ros.learning.sft.demos import (
    Bursts,
    Collector,
    DemosConfig,
    collect_episode,
    read_episode,
    read_header,
    read_outcomes,
    summary,
)
from z1_ros.specs import PANDA

ARRAYS = ("images", "state", "frame_steps", "actions", "disturbed")
TASK = "OpenDrawer"


class Lazy(ReachExpert):
    """Never moves on odd seeds."""

    def act(self):
        odd = self._env.scene_id[-1] in "13579bdf"
        return super().act() * (0 if odd else 1)


@pytest.fixture
def config(tmp_path):
    return DemosConfig(out=tmp_path / "demos", tasks=TASK, episodes=8, image_size=32, noisy=1.0)


def collected(config, expert=ReachExpert):
    collector = Collector(config, ReachEnv, expert)
    for seed in range(config.seed_start, config.seed_start + config.episodes):
        collector.run(TASK, seed)
    return config.out


def test_an_episode_holds_frames_states_and_the_experts_own_actions(config):
    env = ReachEnv()
    env.reset(3)
    expert = ReachExpert(env)
    arrays, outcome = collect_episode(env, expert, 3, replace(config, noisy=0.0, frame_stride=3))
    steps = len(arrays["actions"])
    assert outcome["success"] and outcome["steps"] == steps
    assert arrays["frame_steps"].tolist() == list(range(0, steps, 3))
    assert arrays["images"].shape == (len(arrays["frame_steps"]), 3, 32, 32, 3)
    assert arrays["images"].dtype == np.uint8 and np.ptp(arrays["images"]) > 100
    env.reset(3)
    replayed = env.step(arrays["actions"])
    assert replayed.success and replayed.steps == steps


def test_a_disturbed_step_executes_noise_and_keeps_the_experts_label(config):
    class Recorded(ReachEnv):
        def step(self, actions):
            self.executed = [*getattr(self, "executed", []), actions[0]]
            return super().step(actions)

    env = Recorded()
    for seed in range(20):
        env.reset(seed)
        env.executed = []
        arrays, _ = collect_episode(env, ReachExpert(env), seed, config)
        differs = (np.abs(np.array(env.executed) - arrays["actions"]) > 1e-6).any(1)
        assert np.array_equal(differs, arrays["disturbed"])
        assert np.abs(arrays["actions"][:, :2]).max() <= 0.5
    assert arrays["disturbed"].dtype == bool


def test_bursts_are_a_function_of_task_and_seed_and_leave_the_gripper_alone():
    def pushes(task, seed):
        bursts = Bursts(PANDA, task, seed, 1.0)
        return np.array([bursts.disturb(np.zeros(7, np.float32))[0] for _ in range(300)])

    assert np.array_equal(pushes(TASK, 1), pushes(TASK, 1))
    assert not np.array_equal(pushes(TASK, 1), pushes(TASK, 2))
    assert not np.array_equal(pushes(TASK, 1), pushes("TurnOnMicrowave", 1))
    assert (pushes(TASK, 1)[:, 6] == 0).all() and np.abs(pushes(TASK, 1)).max() <= 1
    calm = Bursts(PANDA, TASK, 1, 0.0)
    assert not any(calm.disturb(np.zeros(7, np.float32))[1] for _ in range(300))


def test_failures_are_counted_and_not_kept(config):
    directory = collected(replace(config, episodes=12, noisy=0.0), Lazy)
    outcomes = read_outcomes(directory, TASK)
    table = summary(directory, [TASK])[TASK]
    assert table["episodes"] == len(outcomes) == 12
    assert 0 < table["successes"] < 12
    kept = {int(p.stem) for p in (directory / TASK).glob("*.npz")}
    assert kept == {o["seed"] for o in outcomes if o["success"]}


def test_collection_goes_on_where_it_stopped_and_ends_the_same(config, tmp_path, monkeypatch):
    monkeypatch.setattr(demos, "Collector", lambda c: Collector(c, ReachEnv, ReachExpert))
    runs = []
    original = Collector.run
    monkeypatch.setattr(Collector, "run", lambda s, t, n: (runs.append(n), original(s, t, n))[1])
    demos.main(replace(config, episodes=3, workers=1))
    (config.out / TASK / "00001.json").unlink()  # killed while this episode was being written
    demos.main(replace(config, workers=1))
    assert runs == [0, 1, 2, 1, 3, 4, 5, 6, 7]
    fresh = replace(config, out=tmp_path / "fresh", workers=1)
    demos.main(fresh)
    for seed in range(8):
        one, two = (read_episode(c.out, TASK, seed, ARRAYS) for c in (config, fresh))
        assert all(np.array_equal(one[name], two[name]) for name in ARRAYS)


def test_other_settings_do_not_mix_into_a_folder(config):
    demos._write_header(config)
    with pytest.raises(ConfigError, match="image_size 32, not 64"):
        demos._write_header(replace(config, image_size=64))
    demos._write_header(replace(config, episodes=99, workers=2))


def test_the_header_spells_out_fields_and_order(config):
    demos._write_header(config)
    header = read_header(config.out)
    assert [f["name"] for f in header["state"]] == [f.name for f in PANDA.state]
    assert header["cameras"] == list(PANDA.cameras)


def test_evaluation_seeds_are_refused():
    with pytest.raises(SeedError, match="seed 10000 is for evaluation"):
        DemosConfig(seed_start=9999, episodes=2)
    with pytest.raises(SeedError):
        DemosConfig(seed_start=20000)


def test_a_folder_without_demonstrations_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no demonstrations"):
        read_header(tmp_path)
    (tmp_path / "demos.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ConfigError, match="not of format"):
        read_header(tmp_path)
