"""Demonstrations of a small world."""

from support.reach_env import ReachEnv, ReachExpert

from z1_ros.learning.sft import demos


def make_demos(out, episodes, task="OpenDrawer", **settings):
    """Collect the first episodes of a task into a folder and return it."""
    config = demos.DemosConfig(out=out, episodes=episodes, **settings)
    demos._write_header(config)
    collector = demos.Collector(config, ReachEnv, ReachExpert)
    for seed in range(episodes):
        collector.run(task, seed)
    return out
