"""Parts of a manifest and their checks: images, prompt, normalisation, contract."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from z1_ros.errors import closest
from z1_ros.models.bundle.parse import is_number
from z1_ros.specs import EMBODIMENTS, Contract, Field

Resize = Literal["area", "bilinear", "bilinear_antialias"]
Mode = Literal["quantile", "mean_std"]
Form = Literal["lerobot", "openpi"]
RESIZE_METHODS: tuple[str, ...] = get_args(Resize)
NORMALIZATION_FORMS: tuple[str, ...] = get_args(Form)
STATS_PARTS = {"quantile": ("q01", "q99"), "mean_std": ("mean", "std")}
"""The statistics that each normalisation mode needs."""
MIN_RANGE = 1e-6
"""Largest range, or standard deviation, of a dimension that counts as constant. For numbers larger
than 1 it is relative to them: float32 can hardly distinguish such a range from rounding."""
MAX_NUMBER = 1e6
"""Largest magnitude of a robot's number in any unit in use; larger statistics are an error."""
BEYOND_LIMITS = 10
"""Largest factor by which statistics of actions may exceed the robot's limits."""
MAX_HZ = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """Conversion of a camera image to a model input."""

    size: int = 224
    """Side of the square model image [px]."""
    resize: Resize = "area"
    """``area`` (antialiased), ``bilinear`` (floating point without antialiasing, as in LeRobot) or
    ``bilinear_antialias`` (with Pillow, as in openpi's policy server)."""
    slots: int = 3
    """Image slots of the network; slots beyond the contract's cameras are masked out."""

    def __post_init__(self) -> None:
        """Check the choice; raises ValueError."""
        require_choice("image.resize", self.resize, RESIZE_METHODS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSpec:
    r"""Format of the prompt (π0.5: ``Task: …, State: …;\nAction: ``)."""

    max_tokens: int = 200
    """Number of tokens that the prompt is padded to."""
    discrete_state: bool = True
    """Whether the prompt contains the normalised state as 256 bins; if not, the state is unused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NormStats:
    """Statistics of one vector, in the contract's flat order; () if the mode does not need them."""

    mean: tuple[float, ...] = ()
    """Mean of each number."""
    std: tuple[float, ...] = ()
    """Standard deviation of each number."""
    q01: tuple[float, ...] = ()
    """1 % quantile of each number."""
    q99: tuple[float, ...] = ()
    """99 % quantile of each number."""

    def constant(self, mode: str) -> tuple[bool, ...]:
        """Return whether each number counts as constant in a normalisation of that mode."""
        first, second = (getattr(self, part) for part in STATS_PARTS[mode])
        spreads = [b - a if mode == "quantile" else b for a, b in zip(first, second, strict=True)]
        return tuple(
            spread <= MIN_RANGE * max(1, abs(a)) for a, spread in zip(first, spreads, strict=True)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """Mapping of state and actions to the model's range."""

    mode: Mode = "quantile"
    """``quantile`` maps [q01, q99] to [-1, 1]; ``mean_std`` is the z-score."""
    action_mode: Mode | None = None
    """Mode of the actions; None uses ``mode``."""
    form: Form = "lerobot"
    """Formulas: those of ``lerobot`` or of ``openpi``, which adds 1e-6 to every range."""
    state: NormStats
    """Statistics of the state."""
    action: NormStats
    """Statistics of the actions."""

    @property
    def mode_of_actions(self) -> Mode:
        """Mode of the actions."""
        return self.action_mode or self.mode

    def __post_init__(self) -> None:
        """Check the choices; raises ValueError."""
        require_choice("normalization.mode", self.mode, STATS_PARTS)
        require_choice("normalization.action_mode", self.mode_of_actions, STATS_PARTS)
        require_choice("normalization.form", self.form, NORMALIZATION_FORMS)


def require_stats(name: str, stats: NormStats, mode: str, dims: Sequence[str]) -> None:
    """Raise ValueError for incomplete or impossible statistics of a vector with ``dims``."""
    for part in fields(stats):
        values = getattr(stats, part.name)
        if values == () and part.name not in STATS_PARTS[mode]:
            continue
        complete = isinstance(values, tuple) and len(values) == len(dims)
        if not complete or not all(is_number(value, MAX_NUMBER) for value in values):
            raise ValueError(
                f"{name}.{part.name} must be {len(dims)} numbers within ±{MAX_NUMBER:,.0f}, "
                "one for each dimension"
            )
    for dim, std in zip(dims, stats.std, strict=False):
        if std < 0:
            raise ValueError(f"{name}.std of {dim} is {std}, below 0")
    for dim, low, high in zip(dims, stats.q01, stats.q99, strict=False):
        if low > high:
            raise ValueError(f"{name}.q99 of {dim} is {high}, below its q01 {low}")
    if dims and all(stats.constant(mode)):
        first, second = STATS_PARTS[mode]
        what = f"{second} is {first}" if mode == "quantile" else f"{second} is 0"
        raise ValueError(f"{name}: {what} in every dimension, so nothing could ever change")


def require_contract(contract: Contract) -> None:
    """Raise ValueError if a part of a contract is empty or a name occurs twice."""
    if not 0 < contract.control_hz <= MAX_HZ:
        raise ValueError(f"contract.control_hz is {contract.control_hz:g}, expected up to {MAX_HZ}")
    names = {
        "contract.cameras": contract.cameras,
        "contract.action": tuple(field.name for field in contract.action),
    }
    names |= {f"contract field {f.name}": f.dims for f in (*contract.state, *contract.action)}
    for what, found in names.items():
        if not found:
            raise ValueError(f"{what} must name at least one")
    names["contract.state"] = tuple(field.name for field in contract.state)
    for what, found in names.items():
        if twice := [name for name, count in Counter(found).items() if count > 1]:
            raise ValueError(f"{what} names {', '.join(twice[:3])} twice")


def require_commands(stats: NormStats, fields_of: Sequence[Field], robot: str) -> None:
    """Raise ValueError for statistics of actions far beyond the robot's command limits.

    Network outputs that are unnormalised with such statistics would be commands of that size. An
    unknown ``robot`` is not checked.
    """
    known = EMBODIMENTS[robot].action if robot in EMBODIMENTS else ()
    limits, at = {own.name: max(abs(own.low), abs(own.high)) for own in known}, 0
    for field in fields_of:
        for part in fields(stats):
            values = getattr(stats, part.name)[at : at + field.size]
            for dim, value in zip(field.dim_names, values, strict=False):
                if field.name in limits and abs(value) > BEYOND_LIMITS * limits[field.name]:
                    raise ValueError(
                        f"normalization.action.{part.name} of {dim} is {value:g}, but robot "
                        f"{robot!r} takes commands within ±{limits[field.name]:g}"
                    )
        at += field.size


def require_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``known``."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is {value!r}. {closest(str(value), known)}")
