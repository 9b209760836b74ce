"""A policy and an environment small enough to reason about, for tests of what is around them."""

import hashlib
import json
import time

import numpy as np

from z1_ros.errors import ActionError, SnapshotMismatch
from z1_ros.specs import PANDA, Contract, Embodiment
from z1_ros.types import ActionChunk, Observation, Step

CONTROL_NS = 50_000_000


def contract_of(embodiment: Embodiment = PANDA, horizon: int = 8, **changes) -> Contract:
    """Return the contract of a model trained on the whole embodiment."""
    values = {
        "cameras": embodiment.cameras,
        "state": embodiment.state,
        "action": embodiment.action,
        "control_hz": embodiment.control_hz,
        "horizon": horizon,
    }
    return Contract(**(values | changes))


def digest_floats(*parts: bytes, n: int) -> np.ndarray:
    """Return n float32 in [-1, 1) that depend on every given byte."""
    seed = int.from_bytes(hashlib.sha256(b"".join(parts)).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)


class HashPolicy:
    """Its actions are a hash of all it was shown: any changed bit changes the trajectory."""

    def __init__(self, contract: Contract | None = None, delay_s: float = 0.0):
        self.contract = contract or contract_of()
        self.delay_s = delay_s
        self.seed = 0
        self.seen: list[Observation] = []

    def reset(self, seed: int) -> None:
        """Take the noise seed."""
        self.seed = seed

    def infer(self, observation: Observation) -> ActionChunk:
        """Hash images, state, instruction, stamp and seed into a chunk."""
        self.seen.append(observation)
        time.sleep(self.delay_s)
        parts = [observation.images[name].tobytes() for name in self.contract.cameras]
        parts += [observation.state[field.name].tobytes() for field in self.contract.state]
        parts += [observation.instruction.encode(), f"{observation.stamp_ns}/{self.seed}".encode()]
        shape = (self.contract.horizon, len(self.contract.action_dims))
        actions = 1.5 * digest_floats(*parts, n=shape[0] * shape[1]).reshape(shape)
        return ActionChunk(
            actions=actions, dims=self.contract.action_dims, stamp_ns=observation.stamp_ns
        )


class FakeEnv:
    """A point that actions push around, with images of where it is."""

    def __init__(
        self,
        task: str = "OpenDrawer",
        embodiment: Embodiment = PANDA,
        image_size: int = 16,
        horizon: int = 40,
    ):
        self.task = task
        self.embodiment = embodiment
        self.image_size = image_size
        self.horizon = horizon
        self.renders = 0
        self.executed: list[np.ndarray] = []
        self.reset(0)

    @property
    def instruction(self) -> str:
        """Differs from seed to seed."""
        return f"{self.task} number {self.seed % 3}"

    @property
    def scene_id(self) -> str:
        """Task and seed."""
        return f"fake/{self.task}/{self.seed}"

    def reset(self, seed: int) -> None:
        """Begin at a random point that the seed gives."""
        self.seed = seed
        self.position = np.random.default_rng(seed).uniform(-0.3, 0.3, self.embodiment.action_dim)
        self.steps = 0
        self.executed = []

    def step(self, actions: np.ndarray) -> Step:
        """Move by a hundredth of each action; as strict as a real simulator."""
        if np.ndim(actions) != 2 or np.shape(actions)[1] != self.embodiment.action_dim:
            raise ActionError(f"actions have shape {np.shape(actions)}")
        if not np.isfinite(actions).all():
            raise ActionError("actions must be finite")
        for action in actions:
            self.position = self.position + 0.01 * action.astype(np.float64)
            self.executed.append(np.array(action))
            self.steps += 1
        done = self.steps >= self.horizon
        return Step(steps=self.steps, success=done, done=done, consumed=len(actions))

    def observe(self) -> Observation:
        """Images are noise that the position gives."""
        self.renders += 1
        return self._observation(
            {camera: self.render(camera, self.image_size) for camera in self.embodiment.cameras}
        )

    def render(self, camera: str, height: int, width: int | None = None) -> np.ndarray:
        """Return (height, width, 3) uint8 noise that position and camera name give."""
        shape = (height, width or height, 3)
        seed = hashlib.sha256(self.position.tobytes() + camera.encode()).digest()[:8]
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        return rng.integers(0, 256, shape, np.uint8)

    def read_state(self) -> Observation:
        """The state without images."""
        return self._observation({})

    def _observation(self, images) -> Observation:
        state = {
            field.name: digest_floats(self.position.tobytes(), field.name.encode(), n=field.size)
            for field in self.embodiment.state
        }
        for name, value in state.items():  # close to each other, as those of a robot
            value *= 0.02
            if "rotation" in name:
                value[-1] = 1
                value /= np.linalg.norm(value)
        state["end_effector_position_relative"] = self.position[:3].astype(np.float32)
        return Observation(
            images=images,
            state=state,
            instruction=self.instruction,
            stamp_ns=self.steps * CONTROL_NS,
        )

    def snapshot(self) -> bytes:
        """JSON of everything."""
        return json.dumps([self.scene_id, self.seed, self.steps, self.position.tolist()]).encode()

    def restore(self, data: bytes) -> None:
        """Refuses another scene's snapshot."""
        scene, self.seed, self.steps, position = json.loads(data)
        if scene != self.scene_id:
            raise SnapshotMismatch(f"snapshot is of {scene}, this is {self.scene_id}")
        self.position = np.asarray(position)

    def close(self) -> None:
        """Nothing to free."""
