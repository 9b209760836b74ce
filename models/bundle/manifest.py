"""The model bundle: a directory that is trained, exported, shipped and loaded as one unit.

``manifest.json`` says what the model needs and gives, how to prepare its inputs, what made it,
and the SHA-256 of every other file. Nothing in a bundle is ever unpickled.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from z1_ros.errors import BundleError, CheckpointError, ConfigError, closest
from z1_ros.files import read_json, real_place, require_writable, sweep, write_json
from z1_ros.models.bundle.graphs import GRAPHS
from z1_ros.models.bundle.task_experts import (
    TaskExpert,
    check_expert_files,
    check_experts,
    choose_expert,
    denoise_graph,
)
from z1_ros.models.checkpoint.weight_files import WEIGHTS as WEIGHTS
from z1_ros.models.network.geometry import Geometry
from z1_ros.specs import Contract, Field

FORMAT = "z1_ros.bundle/1"
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
RESIZE_METHODS = ("area", "bilinear", "bilinear_antialias")
NORMALIZATION_FORMS = ("lerobot", "openpi")
STATS_PARTS = {"quantile": ("q01", "q99"), "mean_std": ("mean", "std")}
"""The statistics that each normalisation mode needs."""
FLOAT32_MAX = 3.4e38
_GRAPH_FILE = re.compile(r"(prefix|denoise(_.+)?)\.onnx(\.data)?")
"""An export that was killed leaves such files without an entry in the manifest."""
MODELS = Path(__file__).parents[1]
"""Folder of the bundles that are shipped with the package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """How a camera image becomes a model input."""

    size: int = 224
    """Side of the square model image [px]."""
    resize: str = "area"
    """``area`` (antialiased), ``bilinear`` (in floating point and not antialiased, as in LeRobot)
    or ``bilinear_antialias`` (Pillow's, as openpi serves its models)."""
    slots: int = 3
    """Image slots of the network; slots beyond the contract's cameras are masked out."""

    def __post_init__(self) -> None:
        """Check the choice; raises ValueError."""
        _require_choice("image.resize", self.resize, RESIZE_METHODS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSpec:
    r"""How instruction and state become text (π0.5: ``Task: …, State: …;\nAction: ``)."""

    max_tokens: int = 200
    """Tokens the prompt is padded to."""
    discrete_state: bool = True
    """Put the normalised state into the prompt as 256 bins; else the state is not used at all."""

    def __post_init__(self) -> None:
        """Check the choice; raises ValueError."""
        _require(
            isinstance(self.discrete_state, bool), "prompt.discrete_state must be true or false"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NormStats:
    """Statistics of one vector, in the contract's flat order; () where the mode needs none."""

    mean: tuple[float, ...] = ()
    """Mean of each number."""
    std: tuple[float, ...] = ()
    """Standard deviation of each number."""
    q01: tuple[float, ...] = ()
    """1 % quantile of each number."""
    q99: tuple[float, ...] = ()
    """99 % quantile of each number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """How state and actions map to the model's range."""

    mode: str = "quantile"
    """``quantile`` maps [q01, q99] to [-1, 1]; ``mean_std`` is the z-score."""
    action_mode: str | None = None
    """Mode of the actions where it is not ``mode``."""
    form: str = "lerobot"
    """Whose formulas: ``lerobot`` or ``openpi``, which adds 1e-6 to every range."""
    state: NormStats
    """Of the state."""
    action: NormStats
    """Of the actions."""

    @property
    def mode_of_actions(self) -> str:
        """Mode of the actions."""
        return self.action_mode or self.mode

    def __post_init__(self) -> None:
        """Check the choices; raises ValueError."""
        _require_choice("normalization.mode", self.mode, STATS_PARTS)
        if self.action_mode is not None:
            _require_choice("normalization.action_mode", self.action_mode, STATS_PARTS)
        _require_choice("normalization.form", self.form, NORMALIZATION_FORMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything a loader has to know about a bundle."""

    name: str
    """Short name, e.g. ``kitchen-sft``."""
    embodiment: str
    """Embodiment it was trained on."""
    contract: Contract
    """Cameras, fields, rate, horizon."""
    image: ImageSpec
    """Image preparation."""
    prompt: PromptSpec
    """Text preparation."""
    normalization: Normalization
    """State and action scaling."""
    geometry: Mapping[str, Any]
    """Network sizes (``z1_ros.models.network.geometry.Geometry`` as a dict)."""
    denoise_steps: int = 10
    """Euler steps from noise to actions."""
    replan_steps: int = 8
    """Actions executed before the next inference."""
    experts: Mapping[str, TaskExpert] = field(default_factory=dict)
    """Task experts by name; instructions that match none go to the base expert."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Command, seed, data and versions that made it."""
    files: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256 of every other file."""
    format: str = FORMAT
    """Layout version of the bundle."""

    def __post_init__(self) -> None:
        """Check types, ranges and that the parts agree.

        Raises:
            ValueError: They do not; ``load_bundle`` makes a BundleError of it.
        """
        for name in ("name", "embodiment", "format"):
            _require(isinstance(getattr(self, name), str), f"{name} must be text")
        for name in ("geometry", "experts", "made_by", "files"):
            _require(isinstance(getattr(self, name), Mapping), f"{name} must be an object")
        check_experts(self.experts)
        contract, horizon = self.contract, self.contract.horizon
        for name, value, high in (
            ("contract.horizon", horizon, 1000),
            ("replan_steps", self.replan_steps, horizon),
            ("denoise_steps", self.denoise_steps, 1000),
            ("image.size", self.image.size, 4096),
            ("prompt.max_tokens", self.prompt.max_tokens, 4096),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool)
            _require(whole and 1 <= value <= high, f"{name} is {value!r}, expected 1 to {high}")
        _require(
            len(contract.cameras) <= self.image.slots,
            f"contract has {len(contract.cameras)} cameras for {self.image.slots} image slots",
        )
        scaling = self.normalization
        state_dims = tuple(dim for field in contract.state for dim in field.dim_names)
        _require_stats("state", scaling.state, scaling.mode, state_dims)
        mode = scaling.mode_of_actions
        _require_stats("action", scaling.action, mode, contract.action_dims)
        known = {f.name for f in fields(Geometry)}
        differ = sorted(known ^ set(self.geometry))
        _require(not differ, f"geometry lacks or does not know: {', '.join(differ)}")
        geometry = Geometry(**self.geometry)
        for name, value in (
            ("horizon", horizon),
            ("image_size", self.image.size),
            ("cameras", self.image.slots),
            ("prompt_tokens", self.prompt.max_tokens),
        ):
            wanted = getattr(geometry, name)
            _require(wanted == value, f"geometry.{name} is {wanted}, the manifest says {value}")

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of all graphs: ``prefix``, ``denoise`` and one for each further expert."""
        return (*GRAPHS, *(denoise_graph(name) for name in self.experts))

    def expert_for(self, instruction: str) -> str:
        """Return the expert that follows an instruction, empty for the base expert.

        Raises:
            BundleError: Several do.
        """
        return choose_expert(self.experts, instruction)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _require_choice(name: str, value: Any, known: Iterable[str]) -> None:
    _require(
        isinstance(value, str) and value in known,
        f"{name} is {value!r}. {closest(str(value), known)}",
    )


def _require_stats(name: str, stats: NormStats, mode: str, dims: tuple[str, ...]) -> None:
    """Raise ValueError unless ``stats`` has what ``mode`` needs for each of ``dims``."""
    name = f"normalization.{name}"
    for part in fields(stats):
        values = getattr(stats, part.name)
        if values == () and part.name not in STATS_PARTS[mode]:
            continue
        _require(
            isinstance(values, tuple) and len(values) == len(dims) and all(map(_finite, values)),
            f"{name}.{part.name} must be {len(dims)} finite numbers",
        )
    for dim, std in zip(dims, stats.std, strict=False):
        _require(std >= 0, f"{name}.std of {dim} is {std}, below 0")
    for dim, low, high in zip(dims, stats.q01, stats.q99, strict=False):
        _require(low <= high, f"{name}.q99 of {dim} is {high}, below its q01 {low}")


def _finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) < FLOAT32_MAX


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory whose files were checked against its manifest."""

    path: Path
    """The directory."""
    manifest: Manifest
    """Its parsed manifest."""
    sha256: str
    """Hash of the manifest, which holds all other hashes: it identifies the bundle."""

    def file(self, name: str) -> Path:
        """Return the path of one of the bundle's files.

        Raises:
            BundleError: The bundle has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"bundle {self.path} has no {name!r}. {closest(name, self.manifest.files)}"
            )
        return self.path / name

    @property
    def tokenizer(self) -> Path:
        """Path of the tokenizer, ``tokenizer.json`` or ``tokenizer.model``.

        Raises:
            BundleError: The bundle has neither.
        """
        for name in (TOKENIZER, SENTENCEPIECE):
            if name in self.manifest.files:
                return self.path / name
        raise BundleError(f"bundle {self.path} has no tokenizer: {TOKENIZER} or {SENTENCEPIECE}")


def require_replaceable(directory: Path) -> None:
    """Check that a bundle may be written here: nothing would be lost but an older bundle.

    Raises:
        ConfigError: Something else is there, also beside an older bundle's files; or nothing can
            be written.
    """
    require_writable(directory)
    place = real_place(directory)
    if not place.exists():
        return
    here = place.is_dir() and place.samefile(".")
    own = _own_files(place) if place.is_dir() and not here else None
    if own is None:
        raise ConfigError(f"{directory} exists and is no bundle; name another place to write one")
    sweep(place)
    others = sorted(path.name for path in place.iterdir() if path.name not in own)
    if others:
        raise ConfigError(
            f"{directory} holds {', '.join(others[:3])}{' …' * (len(others) > 3)} beside a bundle; "
            "it would be lost, so name another place to write one, or move it"
        )


def _own_files(directory: Path) -> set[str] | None:
    """Return the names that a bundle may have in its directory; None if something else is there."""
    if not any(directory.iterdir()):
        return set()
    try:
        data = read_json(directory / MANIFEST)
    except CheckpointError:
        return None
    if not str(data.get("format")).startswith("z1_ros.bundle/"):
        return None
    left = {path.name for path in directory.glob("*.onnx*") if _GRAPH_FILE.fullmatch(path.name)}
    files = data.get("files")
    return {MANIFEST, *left, *(files if isinstance(files, dict) else ())}


def bundled_path(name: str) -> Path:
    """Return the directory of a bundle shipped with the package (``models/<name>``)."""
    return MODELS / name


def find_bundle(path: str | Path) -> Path:
    """Return the directory of a bundle; nothing in it is read.

    Args:
        path: Directory, or the name of a bundle shipped with the package (``kitchen-sft``).

    Raises:
        BundleError: There is none.
    """
    given = Path(path).expanduser()
    directory = given
    if (
        not given.exists()
        and given.name == str(path)
        and (bundled_path(given.name) / MANIFEST).is_file()
    ):
        directory = bundled_path(given.name)
    if not directory.is_dir():
        shipped = sorted(p.parent.name for p in MODELS.glob(f"*/{MANIFEST}"))
        raise BundleError(
            f"no model bundle at {given} (a directory with {MANIFEST}); shipped bundles: "
            f"{', '.join(shipped) or 'none'}"
        )
    if not (directory / MANIFEST).is_file():
        raise BundleError(f"{directory} is not a model bundle: it has no {MANIFEST}")
    return directory


def load_bundle(path: str | Path) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: As for ``find_bundle``.

    Raises:
        BundleError: Missing directory, manifest or file; malformed manifest; hash mismatch.
    """
    directory = find_bundle(path)
    manifest_path = directory / MANIFEST
    try:
        text = manifest_path.read_bytes()
        manifest = from_json(Manifest, json.loads(text.decode("utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{manifest_path} is malformed: {error}") from error
    if manifest.format != FORMAT:
        raise BundleError(f"{manifest_path} has format {manifest.format!r}, expected {FORMAT!r}")
    for name, expected in manifest.files.items():
        file = directory / name
        if Path(name).name != name:
            raise BundleError(f"{manifest_path} names {name!r}, which is not a plain file name")
        if not file.is_file():
            raise BundleError(f"bundle {directory} is incomplete: {name} is missing")
        actual = file_sha256(file)
        if actual != expected:
            raise BundleError(
                f"{file} is corrupted or was changed: SHA-256 {actual[:12]}…, "
                f"manifest says {expected[:12]}…"
            )
    check_expert_files(manifest.experts, manifest.files, str(directory))
    return Bundle(directory, manifest, hashlib.sha256(text).hexdigest())


def write_manifest(
    directory: Path, manifest: Manifest, names: Iterable[str] | None = None
) -> Bundle:
    """Hash files into a manifest and write it in one step.

    Args:
        directory: Where the files are and the manifest goes.
        manifest: Everything but the hashes.
        names: Files of the bundle; None means all that are there.
    """
    if names is None:
        names = (p.name for p in directory.iterdir() if p.is_file() and p.name != MANIFEST)
    hashes = {name: file_sha256(directory / name) for name in sorted(names)}
    manifest = replace(manifest, files=hashes)
    write_json(directory / MANIFEST, asdict(manifest))
    return Bundle(directory, manifest, file_sha256(directory / MANIFEST))


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_NESTED: dict[tuple[str, str], type] = {
    ("Manifest", "contract"): Contract,
    ("Manifest", "image"): ImageSpec,
    ("Manifest", "prompt"): PromptSpec,
    ("Manifest", "normalization"): Normalization,
    ("Normalization", "state"): NormStats,
    ("Normalization", "action"): NormStats,
    ("Contract", "state"): Field,
    ("Contract", "action"): Field,
}
_NESTED_BY_NAME: dict[tuple[str, str], type] = {("Manifest", "experts"): TaskExpert}


def from_json(cls: type, data: Any) -> Any:
    """Build dataclass ``cls`` from parsed JSON; unknown or missing keys are a ValueError."""
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} must be an object, got {type(data).__name__}")
    known = {f.name for f in fields(cls)}
    for key in data:
        if key not in known:
            raise ValueError(f"{cls.__name__} has no key {key!r}. {closest(key, known)}")
    values = {}
    for key, value in data.items():
        nested = _NESTED.get((cls.__name__, key))
        if nested is not None and is_dataclass(nested):
            several = isinstance(value, list)
            value = (
                tuple(from_json(nested, v) for v in value) if several else from_json(nested, value)
            )
        elif (cls.__name__, key) in _NESTED_BY_NAME and isinstance(value, dict):
            nested = _NESTED_BY_NAME[cls.__name__, key]
            value = {name: from_json(nested, v) for name, v in value.items()}
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    return cls(**values)
