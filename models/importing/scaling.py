"""Meaning and normalisation of the numbers in a checkpoint's state and actions.

The module combines three sources: the fields in the order of the columns, the statistics of the
columns, and the normalisation modes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from z1_ros.errors import CheckpointError, ConfigError
from z1_ros.models.bundle.parts import Mode, Normalization, NormStats
from z1_ros.models.importing.config import ImportConfig
from z1_ros.models.importing.modality import KINDS, KNOWN_ORDERS, Order, fields_of, list_sizes
from z1_ros.models.importing.norm_stats import ENDS, Parts, Stats, cut, identity, norm_stats
from z1_ros.models.importing.origin import Origin
from z1_ros.models.importing.plausibility import find_suspicious, rescale, switches_from_zero
from z1_ros.specs import Embodiment, Field

OURS = {"quantile": "QUANTILES", "mean_std": "MEAN_STD"}
"""Normalisation mode of z1_ros -> LeRobot's name of it."""
UNSTATED = (
    "Nothing beside the weights says how state and actions were normalised; quantile is π0.5's "
    "default (RoboCasa365's and some LIBERO checkpoints need --norm-mode mean_std)."
)
SWITCH = (
    "{} is 0 or 1 in the checkpoint; its statistics were mapped so that the policy commands "
    "-1 or 1."
)
CONSTANT = (
    "By its statistics the checkpoint never changed {} in training, so the policy commands one "
    "value there."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Fields and normalisation of a bundle."""

    state: tuple[Field, ...]
    """State fields; empty if the prompt contains no state."""
    action: tuple[Field, ...]
    normalization: Normalization
    """Statistics in the order of the fields."""
    modes: Mapping[str, str]
    """``state`` and ``action`` -> LeRobot's name of the mode."""
    notes: tuple[str, ...]


def plan_scaling(
    robot: Embodiment,
    origin: Origin,
    stats: Stats,
    order: Order,
    config: ImportConfig,
) -> Scaling:
    """Combine fields, statistics and modes.

    Raises:
        ConfigError: The sizes do not match, or a field is unknown.
        CheckpointError: Statistics are missing or impossible, or look like another known order.
    """
    kinds = KINDS if config.discrete_state else ("action",)
    fields = {kind: fields_of(getattr(order, kind), robot, kind) for kind in kinds}
    for kind in kinds:
        _check_size(fields[kind], kind, robot, origin, stats, order)
    parts = _cut(fields, stats)
    doubts = _doubts(fields, parts, robot, stats, config.allow_suspicious_stats)
    mode, stated = config.norm_mode, stats.modes or origin.modes
    modes = {kind: OURS[mode] if mode else stated.get(kind, "QUANTILES") for kind in kinds}
    notes = doubts if mode or stated else [*doubts, UNSTATED]
    switches = switches_from_zero(fields["action"], parts["action"])
    notes += [SWITCH.format(column.name) for column in switches]
    for kind in kinds:
        if modes[kind] == "IDENTITY":
            parts[kind] = identity(sum(field.size for field in fields[kind]))
    parts["action"] = rescale(parts["action"], switches)
    made = {k: norm_stats(parts[k], modes[k], f"the {k} in {stats.file.name}") for k in kinds}
    ours: dict[str, Mode] = {k: "quantile" if modes[k] in ENDS else "mean_std" for k in kinds}
    names = [name for field in fields["action"] for name in field.dim_names]
    unmoved = made["action"].constant(ours["action"])
    fixed = [name for name, is_constant in zip(names, unmoved, strict=True) if is_constant]
    notes += [CONSTANT.format(", ".join(fixed))] if fixed else []
    return Scaling(
        state=fields.get("state", ()),
        action=fields["action"],
        normalization=Normalization(
            mode=ours.get("state", ours["action"]),
            action_mode=ours["action"],
            form=stats.form,
            state=made.get("state", NormStats()),
            action=made["action"],
        ),
        modes=modes,
        notes=tuple(notes),
    )


def _check_size(
    fields: Sequence[Field],
    kind: str,
    robot: Embodiment,
    origin: Origin,
    stats: Stats,
    order: Order,
) -> None:
    """Raise ConfigError if the size of the fields differs from the size in the checkpoint.

    If the checkpoint does not define the size, an explicitly stated order is accepted (padding is
    checked later); the robot's own order must have exactly the size of the statistics.
    """
    size = origin.vectors.get(kind)
    if size is None and kind not in order.spelled_out:
        size = next((len(values) for values in getattr(stats, kind).values()), None)
    total = sum(field.size for field in fields)
    if size not in (None, total):
        raise ConfigError(
            f"the checkpoint's {kind} has {size} numbers, but {order.source} ("
            f"{list_sizes(fields)}) has {total}. Robot {robot.name!r} has "
            f"{list_sizes(getattr(robot, kind))}. Say the checkpoint's order: "
            f"--modality {'|'.join(KNOWN_ORDERS)}|modality.json, or --{kind} a,b,c."
            f"{_hint(robot, stats)}"
        )


def _cut(fields: Mapping[str, Sequence[Field]], stats: Stats) -> dict[str, Parts]:
    return {
        kind: cut(
            getattr(stats, kind),
            sum(field.size for field in some),
            f"the {kind} ({list_sizes(some)}) in {stats.file.name}",
        )
        for kind, some in fields.items()
    }


def _doubts(
    fields: Mapping[str, Sequence[Field]],
    parts: Mapping[str, Parts],
    robot: Embodiment,
    stats: Stats,
    allow_suspicious: bool,
) -> list[str]:
    """Return sentences on implausible statistics; raise if another known order explains them."""
    found = find_suspicious(fields, parts, robot)
    if not found:
        return []
    more = f" (and {len(found) - 1} more columns like it)" if len(found) > 1 else ""
    odd = f"{stats.file.name} does not look like statistics of these fields: {found[0]}{more}"
    hint = _hint(robot, stats)
    if hint and not allow_suspicious:
        raise CheckpointError(
            f"{odd}.{hint} Say the order with --modality; --allow-suspicious-stats goes on as it is"
        )
    return [f"{odd}. Make sure that the order of the columns is right before it moves a robot."]


def _hint(robot: Embodiment, stats: Stats) -> str:
    """Return a sentence that names the known orders that fit the statistics; empty if none."""
    likely = [name for name, order in KNOWN_ORDERS.items() if _fits(order, robot, stats)]
    return f" The statistics look like {' or '.join(likely)}." if likely else ""


def _fits(order: Order, robot: Embodiment, stats: Stats) -> bool:
    try:
        fields = {kind: fields_of(getattr(order, kind), robot, kind) for kind in KINDS}
        parts = _cut(fields, stats)
    except (ConfigError, CheckpointError):
        return False
    return all(parts.values()) and not find_suspicious(fields, parts, robot)
