"""From the parameters of ``policy_node`` to a policy that is checked and warm. No ROS in here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from z1_ros.errors import ActionError, ContractMismatch, first_difference
from z1_ros.nodes.configs import PolicyNodeConfig
from z1_ros.policy.base import Policy
from z1_ros.specs import Contract, check_contract, embodiment, ordered_actions
from z1_ros.types import ActionChunk, Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy, ready to act."""

    policy: Policy
    """The policy."""
    name: str
    """What messages call it."""
    replan_steps: int
    """Actions executed before the next inference, unless a parameter says otherwise."""
    embodiment: str = ""
    """Robot it was trained on."""
    sha256: str = ""
    """SHA-256 of its bundle; empty if it has none."""
    infer_each: Callable[[Observation], Sequence[ActionChunk]] | None = None
    """Action chunks of all its task experts; None where ``policy.infer`` is all there is."""


def load_bundle_policy(config: PolicyNodeConfig) -> LoadedPolicy:
    """Load the model bundle that ``config`` names; raises a Z1Error that says what is wrong."""
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
    )


def check_takes_over(new: LoadedPolicy, old: LoadedPolicy, replan_steps: int) -> None:
    """Raise ContractMismatch unless ``new`` can act in the place of ``old``.

    Robot, contract (cameras, state, actions, rate, horizon) and the actions between two inferences
    must be equal: subscriptions, control loop and a simulator's rendering follow them. All else may
    differ: weights, experts, network sizes, preparation of images, prompt and normalisation,
    denoise steps.

    Args:
        new: Asks to act.
        old: Acts.
        replan_steps: What a parameter says; 0 if nothing.
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
    """Raise ActionError unless a model's action chunk is finite and what its contract says."""
    try:
        actions = ordered_actions(chunk.actions, contract.action_dims, chunk.dims, ndim=2)
        if len(actions) != contract.horizon:
            raise ActionError(f"there are {len(actions)}, expected {contract.horizon}")
    except ActionError as error:
        raise ActionError(f"model {name!r} gives actions that cannot be used: {error}") from error


def blank_observation(contract: Contract) -> Observation:
    """Return black images and zeros, to warm an inference library up with."""
    return Observation(
        images={camera: np.zeros((224, 224, 3), np.uint8) for camera in contract.cameras},
        state={field.name: np.zeros(field.size, np.float32) for field in contract.state},
        instruction="warm up",
        stamp_ns=0,
    )


Load = Callable[[PolicyNodeConfig], LoadedPolicy]
"""Loads what parameters name; raises a Z1Error that says what is wrong."""


def ready_policy(
    load: Load, config: PolicyNodeConfig, old: LoadedPolicy | None = None
) -> LoadedPolicy:
    """Return the policy that ``config`` names, once it fits and each task expert gave a chunk.

    Args:
        load: Loads it.
        config: Names model and robot.
        old: Whose place it shall take, if it is to act in the place of another.

    Raises:
        ContractMismatch: It does not fit the robot, or cannot take over.
        ActionError: An action chunk has another shape, or is not finite.
        Z1Error: What ``load`` raises.
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
