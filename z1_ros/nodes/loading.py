"""Loads, checks and warms up the policy that ``policy_node``'s parameters name, without ROS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ActionError, ContractMismatch, first_difference
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.policy.base import Policy
from z1_ros.specs import Contract, check_contract, embodiment, ordered_actions
from z1_ros.types import ActionChunk, Observation

BASE_NAME = "base network"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy that is ready for inference."""

    policy: Policy
    name: str
    """Name of the policy in messages."""
    replan_steps: int
    """Actions executed before the next inference; the node parameter has priority."""
    embodiment: str = ""
    """Robot that the policy was trained on."""
    sha256: str = ""
    """SHA-256 of the policy's bundle; empty without a bundle."""
    infer_each: Callable[[Observation], Sequence[ActionChunk]] | None = None
    """Function that returns the action chunks of all task experts; None if ``policy.infer``
    covers all."""
    experts: tuple[str, ...] = ()
    """Names of the task experts."""
    expert_for: Callable[[str], str] | None = None
    """Function that returns the task expert of an instruction, empty for the base network."""

    def expert_of(self, instruction: str) -> str:
        """Return the name of the network that acts on an instruction; empty without experts."""
        if not self.experts or self.expert_for is None:
            return ""
        return self.expert_for(instruction) or BASE_NAME


def load_bundle_policy(config: PolicyNodeConfig) -> LoadedPolicy:
    """Load the model bundle that ``config`` names; raises a Z1Error if that fails."""
    from z1_ros.policy.backends import load_policy

    policy = load_policy(config.model, backend=config.backend, threads=config.threads)
    manifest = policy.manifest
    return LoadedPolicy(
        policy=policy,
        name=manifest.name,
        replan_steps=manifest.replan_steps,
        embodiment=manifest.embodiment,
        sha256=policy.bundle.sha256,
        infer_each=policy.infer_each,
        experts=tuple(manifest.experts),
        expert_for=manifest.expert_for,
    )


def check_takes_over(new: LoadedPolicy, old: LoadedPolicy, replan_steps: int) -> None:
    """Raise ContractMismatch if ``new`` cannot replace ``old`` in a running node.

    Robot, contract (cameras, state, actions, rate, horizon) and the number of actions between two
    inferences must be equal, because subscriptions, control loop and the simulator's rendering
    depend on them. The rest may differ: weights, experts, network sizes, preprocessing of images,
    prompt and normalisation, denoise steps. ``replan_steps`` is the node parameter; 0 if each
    policy's own value applies.
    """
    pairs = [
        ("embodiment", new.embodiment, old.embodiment),
        ("contract", new.policy.contract, old.policy.contract),
    ]
    if not replan_steps:
        pairs.append(("replan_steps", new.replan_steps, old.replan_steps))
    for pair in pairs:
        if differs := first_difference(*pair):
            raise ContractMismatch(
                f"model {new.name!r} cannot take over from {old.name!r}: they differ in {differs}; "
                "only cleanup and configure can change that"
            )


def check_chunk(chunk: ActionChunk, contract: Contract, name: str) -> None:
    """Raise ActionError unless an action chunk is finite and fits the model's contract."""
    try:
        actions = ordered_actions(chunk.actions, contract.action_dims, chunk.dims, ndim=2)
        if len(actions) != contract.horizon:
            raise ActionError(f"there are {len(actions)}, expected {contract.horizon}")
    except ActionError as error:
        raise ActionError(f"model {name!r} gives actions that cannot be used: {error}") from error


def blank_observation(contract: Contract) -> Observation:
    """Return an observation of black images and zeros, to warm up an inference library."""
    return Observation(
        images={camera: np.zeros((224, 224, 3), np.uint8) for camera in contract.cameras},
        state={field.name: np.zeros(field.size, np.float32) for field in contract.state},
        instruction="warm up",
        stamp_ns=0,
    )


Load = Callable[[PolicyNodeConfig], LoadedPolicy]
"""Function that loads the policy that the parameters name; raises a Z1Error if that fails."""


def ready_policy(
    load: Load, config: PolicyNodeConfig, old: LoadedPolicy | None = None
) -> LoadedPolicy:
    """Load the policy that ``config`` names, check it and run each task expert once.

    Raises:
        ContractMismatch: The policy does not fit the robot, or cannot replace ``old``.
        ActionError: An action chunk has a wrong shape, or is not finite.
        Z1Error: ``load`` failed.
    """
    loaded = load(config)
    contract = loaded.policy.contract
    check_contract(contract, embodiment(config.embodiment), loaded.name)
    if old is not None:
        check_takes_over(loaded, old, config.replan_steps)
    blank = blank_observation(contract)
    chunks = loaded.infer_each(blank) if loaded.infer_each else [loaded.policy.infer(blank)]
    for chunk in chunks:
        check_chunk(chunk, contract, loaded.name)
    return loaded
