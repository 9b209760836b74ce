"""Scenes: one for each seed, equal for equal seeds, everything varies."""

import numpy as np
from support.kitchen import SMALL, kitchen

from z1_ros.sim.kitchen import KitchenConfig, KitchenEnv


def test_seeds_give_other_kitchens_and_equal_seeds_the_same():
    env = KitchenEnv("OpenDrawer", config=SMALL)
    seen = []
    for seed in (0, 1, 2, 0):
        env.reset(seed)
        pose = [env.model.body("base").pos.copy(), env.model.body("drawer_left").pos.copy()]
        seen.append(
            (env.scene_id, env.model.tex_data.tobytes(), env.data.qpos.tobytes(), str(pose))
        )
    assert seen[0] == seen[3]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert all(a != b for a, b in zip(seen[first][:3], seen[second][:3], strict=True))


def test_tasks_do_not_share_scenes():
    faucet, carry = kitchen("TurnOnSinkFaucet", seed=7), kitchen("PnPCounterToSink", seed=7)
    assert faucet.scene_id != carry.scene_id
    assert faucet.model.tex_data.tobytes() != carry.model.tex_data.tobytes()


def test_everything_varies_over_seeds():
    """Sides, object kinds, unit order, base placement and colours all vary."""
    env = KitchenEnv("PnPCounterToSink", config=SMALL)
    told, orders, bases, tints = set(), set(), [], set()
    for seed in range(24):
        env.reset(seed)
        scene = env.goal.scene
        told.add(env.instruction)
        orders.add(tuple(scene.units))
        bases.append(env.model.body("base").pos[1] - scene.units["sink"])
        tints.add(tuple(np.round(scene.look.textures["cabinet"].mean((0, 1)), 0)))
    assert len(told) >= 5 and len(orders) >= 10 and len(tints) >= 10
    assert np.ptp(bases) > 0.15 and np.max(np.abs(bases)) <= 0.12 + 1e-9
    sides = {kitchen("OpenDrawer", seed=s).instruction for s in range(8)}
    assert sides == {"open the left drawer", "open the right drawer"}


def test_no_randomisation_gives_one_kitchen():
    still = KitchenConfig(randomisation=0.0)
    first, second = (kitchen("PnPCounterToSink", seed, config=still) for seed in (1, 2))
    assert first.goal.scene.digest == second.goal.scene.digest


def test_scene_id_depends_on_settings():
    ids = {
        kitchen("OpenDrawer", config=config).scene_id
        for config in (SMALL, KitchenConfig(image_size=64), KitchenConfig(randomisation=0.5))
    }
    assert len(ids) == 3
