"""A tiny world with the Env interface: move a blue dot onto a red square seen in the images."""

import hashlib

import numpy as np

from z1_ros.sim.snapshot import pack, unpack
from z1_ros.specs import PANDA, Embodiment
from z1_ros.types import Observation, Step

PX = 48
SPEED = 0.1


class ReachEnv:
    """x and y of the end effector move in [-1, 1]; reaching the square is success."""

    horizon = 60
    image_bytes = len(PANDA.cameras) * 3 * PX * PX
    """As of ``EnvMaker``, so that the class itself may stand where a maker is asked for."""

    def __init__(self, task: str = "OpenDrawer", robot: Embodiment = PANDA):
        self.task = task
        self.embodiment = robot
        self.instruction = "open the left drawer"
        self.scene_id = ""

    def reset(self, seed: int) -> None:
        """Choose a start and a target."""
        self.seed = seed
        random = np.random.default_rng(seed)
        self.position, self.target = random.uniform(-0.8, 0.8, (2, 2))
        self.steps, self.success = 0, False
        self.scene_id = hashlib.sha256(f"{self.task}{seed}".encode()).hexdigest()

    def step(self, actions: np.ndarray) -> Step:
        """Move by x and y of each action."""
        consumed = 0
        for action in actions:
            consumed += 1
            self.position = np.clip(self.position + SPEED * action[:2], -1, 1)
            self.steps += 1
            self.success |= bool(np.abs(self.position - self.target).max() < 0.1)
            if self.success or self.steps >= self.horizon:
                break
        done = self.success or self.steps >= self.horizon
        return Step(steps=self.steps, success=self.success, done=done, consumed=consumed)

    def observe(self) -> Observation:
        """Render both into one picture, shown by every camera."""
        image = np.full((PX, PX, 3), 60, np.uint8)
        for place, half, colour in (
            (self.target, 4, (230, 40, 40)),
            (self.position, 2, (40, 90, 250)),
        ):
            column, row = ((place + 1) / 2 * (PX - 1)).astype(int)
            image[max(0, row - half) : row + half, max(0, column - half) : column + half] = colour
        state = self.read_state().state
        images = dict.fromkeys(self.embodiment.cameras, image)
        return Observation(
            images=images, state=state, instruction=self.instruction, stamp_ns=self.stamp_ns
        )

    @property
    def stamp_ns(self) -> int:
        """Simulated time [ns]."""
        return self.steps * 50_000_000

    def read_state(self) -> Observation:
        """Only the end effector's position moves."""
        state = {f.name: np.zeros(f.size, np.float32) for f in self.embodiment.state}
        state["end_effector_position_relative"][:2] = self.position
        state["end_effector_rotation_relative"][3] = 1
        return Observation(
            images={}, state=state, instruction=self.instruction, stamp_ns=self.stamp_ns
        )

    def privileged_state(self) -> np.ndarray:
        """Return where the dot is, and how far the square."""
        return np.concatenate([self.position, self.target - self.position]).astype(np.float32)

    def snapshot(self) -> bytes:
        """Return the present state."""
        arrays = {"place": np.concatenate([self.position, self.target])}
        return pack({"seed": self.seed, "steps": self.steps, "scene": self.scene_id}, arrays)

    def restore(self, data: bytes) -> None:
        """Go back to a snapshot."""
        facts, arrays = unpack(data)
        self.position, self.target = arrays["place"][:2], arrays["place"][2:]
        self.steps, self.success, self.scene_id = facts["steps"], False, facts["scene"]
        self.seed = facts["seed"]

    def close(self) -> None:
        """Nothing to free."""


class ReachExpert:
    """Goes straight to the square."""

    def __init__(self, env: ReachEnv):
        self._env = env

    def act(self) -> np.ndarray:
        """Return the next action (action_dim,)."""
        action = np.zeros(self._env.embodiment.action_dim, np.float32)
        action[:2] = np.clip((self._env.target - self._env.position) / SPEED, -0.5, 0.5)
        action[6] = -1
        return action
