"""A manifest for tests that need no weights."""

from dataclasses import asdict

from z1_ros.models.bundle.manifest import (
    ImageSpec,
    Manifest,
    Normalization,
    NormStats,
    PromptSpec,
)
from z1_ros.models.network.geometry import SMALL
from z1_ros.specs import PANDA, Contract, Field


def stats(size: int) -> NormStats:
    """Return statistics that normalise to the numbers themselves."""
    return NormStats(mean=(0.0,) * size, std=(1.0,) * size, q01=(-1.0,) * size, q99=(1.0,) * size)


MANIFEST_VALUE = Manifest(
    name="m",
    embodiment="panda",
    contract=Contract(
        cameras=PANDA.cameras,
        state=PANDA.state[1:],
        action=tuple(Field(name=f.name, dims=f.dims, unit=f.unit) for f in PANDA.action),
        control_hz=20.0,
        horizon=16,
    ),
    image=ImageSpec(size=96),
    prompt=PromptSpec(max_tokens=48),
    normalization=Normalization(state=stats(9), action=stats(7)),
    geometry=asdict(SMALL),
    made_by={"command": "test"},
)
