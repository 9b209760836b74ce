"""The model bundle: a directory that is trained, exported, shipped and loaded as one unit.

``manifest.json`` describes the inputs and outputs of the model, the preprocessing, the origin, and
the SHA-256 of every other file. No file of a bundle is unpickled.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from z1_ros.errors import BundleError, CheckpointError, ConfigError, closest
from z1_ros.files import (
    JSON_LIMIT,
    file_stamp,
    parse_json,
    read_bytes,
    read_json,
    real_place,
    require_writable,
    shown,
    sweep,
    write_json,
)
from z1_ros.models.bundle.graphs import GRAPHS
from z1_ros.models.bundle.parse import from_json
from z1_ros.models.bundle.parts import (
    STATS_PARTS,
    ImageSpec,
    Normalization,
    PromptSpec,
    require_commands,
    require_contract,
    require_stats,
)
from z1_ros.models.bundle.parts import NormStats as NormStats
from z1_ros.models.bundle.task_experts import (
    TaskExpert,
    check_expert_files,
    check_experts,
    choose_expert,
    denoise_graph,
)
from z1_ros.models.checkpoint.weight_files import WEIGHTS as WEIGHTS
from z1_ros.models.network.geometry import LARGEST, Geometry
from z1_ros.specs import Contract

FORMAT = "z1_ros.bundle/1"
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
MAY_BE_MISSING = (
    "Manifest.experts",
    "TaskExpert.made_by",
    *(f"NormStats.{part}" for parts in STATS_PARTS.values() for part in parts),
)
"""Keys that may be missing in a manifest; the statistics that its mode needs are checked later."""
_GRAPH_FILE = re.compile(r"(prefix|denoise(_.+)?)\.onnx(\.data)?")
"""Files that a killed export may leave without an entry in the manifest."""
MODELS = Path(__file__).parents[1]
"""Folder of the bundles that are shipped with the package, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Content of ``manifest.json``: all information that is needed to load a bundle."""

    name: str
    """Short name, e.g. ``kitchen-sft``."""
    embodiment: str
    """Embodiment that the model was trained on."""
    contract: Contract
    """Cameras, fields, rate, horizon."""
    image: ImageSpec
    """Image preprocessing."""
    prompt: PromptSpec
    """Text preprocessing."""
    normalization: Normalization
    """State and action scaling."""
    geometry: Mapping[str, int]
    """Network sizes (``z1_ros.models.network.geometry.Geometry`` as a dict)."""
    denoise_steps: int = 10
    """Euler steps from noise to actions."""
    replan_steps: int = 8
    """Actions executed before the next inference."""
    experts: Mapping[str, TaskExpert] = field(default_factory=dict)
    """Task experts by name; the base expert handles instructions that match none of them."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Command, seed, data and versions that the bundle was made with."""
    files: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256 of every other file."""
    format: str = FORMAT
    """Layout version of the bundle."""

    def __post_init__(self) -> None:
        """Raise ValueError for wrong types or ranges, and for parts that do not fit together."""
        _check_names(self.files)
        check_experts(self.experts)
        require_contract(self.contract)
        contract, horizon = self.contract, self.contract.horizon
        for name, value, high in (
            ("contract.horizon", horizon, LARGEST["horizon"]),
            ("replan_steps", self.replan_steps, horizon),
            ("denoise_steps", self.denoise_steps, 1000),
        ):
            well = type(value) is int and 1 <= value <= high
            _require(well, f"{name} is {shown(value)}, expected 1 to {high}")
        known = {f.name for f in fields(Geometry)}
        differ = sorted(known ^ set(self.geometry))
        _require(not differ, f"geometry lacks or does not know: {', '.join(differ)[:200]}")
        geometry = Geometry(**self.geometry)
        for name, value, wanted in (
            ("contract.horizon", horizon, geometry.horizon),
            ("image.size", self.image.size, geometry.image_size),
            ("image.slots", self.image.slots, geometry.cameras),
            ("prompt.max_tokens", self.prompt.max_tokens, geometry.prompt_tokens),
        ):
            _require(wanted == value, f"{name} is {shown(value)}, the geometry says {wanted}")
        for name, size, high in (
            ("cameras", len(contract.cameras), geometry.cameras),
            ("action dimensions", len(contract.action_dims), geometry.action_dim),
        ):
            _require(size <= high, f"the contract has {size} {name}, the network {high}")
        scaling = self.normalization
        state_dims = tuple(dim for field in contract.state for dim in field.dim_names)
        require_stats("normalization.state", scaling.state, scaling.mode, state_dims)
        mode = scaling.mode_of_actions
        require_stats("normalization.action", scaling.action, mode, contract.action_dims)
        require_commands(scaling.action, contract.action, self.embodiment)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of all graphs: ``prefix``, ``denoise`` and one for each further expert."""
        return (*GRAPHS, *(denoise_graph(name) for name in self.experts))

    def expert_for(self, instruction: str) -> str:
        """Return the expert for an instruction, empty for the base one; see ``choose_expert``."""
        return choose_expert(self.experts, instruction)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _check_names(files: Mapping[str, str]) -> None:
    for name, sha256 in files.items():
        plain = name == Path(name).name and name not in ("..", MANIFEST)
        _require(plain, f"files names {name!r}, which is not a plain file name")
        well = re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
        _require(well, f"files.{name} must be a SHA-256 in hex, got {shown(sha256)}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory whose files were checked against its manifest."""

    path: Path
    manifest: Manifest
    sha256: str
    """SHA-256 of the manifest; it identifies the bundle, as the manifest has all other hashes."""
    stamps: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)
    """File name -> file stamp at the time of hashing."""

    def file(self, name: str) -> Path:
        """Return the path of a file; raises BundleError if it is not in the manifest or changed."""
        if name not in self.manifest.files:
            raise BundleError(
                f"bundle {self.path} has no {name!r}. {closest(name, self.manifest.files)}"
            )
        if name in self.stamps:
            self.require_unchanged([name])
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return the content of a file; raises BundleError if its hash is not the manifest's."""
        data = self.file(name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name]:
            raise BundleError(f"bundle {self.path} was written while it was loaded: {name} changed")
        return data

    def require_unchanged(self, names: Iterable[str] | None = None) -> None:
        """Raise BundleError if one of the files (None: all) has changed since it was hashed."""
        for name in self.stamps if names is None else names:
            file = self.path / name
            sha256 = self.sha256 if name == MANIFEST else self.manifest.files[name]
            with suppress(OSError):
                if file_stamp(file) == self.stamps.get(name) or file_sha256(file) == sha256:
                    continue
            raise BundleError(
                f"bundle {self.path} was written while it was loaded ({name} changed); load it "
                "again"
            )

    @property
    def tokenizer(self) -> Path:
        """Path of ``tokenizer.json`` or ``tokenizer.model``; BundleError if there is neither."""
        for name in (TOKENIZER, SENTENCEPIECE):
            if name in self.manifest.files:
                return self.file(name)
        raise BundleError(f"bundle {self.path} has no tokenizer: {TOKENIZER} or {SENTENCEPIECE}")


def require_replaceable(directory: Path) -> None:
    """Raise ConfigError unless a bundle may be written to ``directory``.

    The directory must be writable, and must not contain files that do not belong to a bundle.
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
    """Return the file names of a bundle in ``directory``; None if it is not a bundle."""
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


def find_bundle(path: str | Path) -> Path:
    """Return the directory of a bundle without reading its files; raises BundleError if absent.

    ``path`` is a directory, or the name of a bundle shipped with the package (``kitchen-sft``).
    """
    directory = given = Path(path).expanduser()
    shipped_one = MODELS / given.name
    if not given.exists() and given.name == str(path) and (shipped_one / MANIFEST).is_file():
        directory = shipped_one
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
    """Read and verify a bundle; ``path`` is a directory or name, as for ``find_bundle``.

    Raises:
        BundleError: The directory, manifest or a file is missing, the manifest is malformed, or a
            hash differs.
    """
    directory = find_bundle(path)
    manifest_path, stamps = directory / MANIFEST, {MANIFEST: file_stamp(directory / MANIFEST)}
    try:
        text = read_bytes(manifest_path, JSON_LIMIT)
        data = parse_json(text)
        stated = data.get("format", FORMAT) if isinstance(data, dict) else FORMAT
        _require(stated == FORMAT, f"format is {shown(stated)}, expected {FORMAT!r}")
        manifest = from_json(Manifest, data, MAY_BE_MISSING)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{manifest_path} is malformed: {error}") from error
    for name, expected in manifest.files.items():
        file = directory / name
        if not file.is_file():
            raise BundleError(f"bundle {directory} is incomplete: {name} is missing")
        stamps[name] = file_stamp(file)
        actual = file_sha256(file)
        if actual != expected:
            raise BundleError(
                f"{file} is corrupted or was changed: SHA-256 {actual[:12]}…, "
                f"manifest says {expected[:12]}…"
            )
    check_expert_files(manifest.experts, manifest.files, str(directory))
    return Bundle(directory, manifest, hashlib.sha256(text).hexdigest(), stamps)


def write_manifest(
    directory: Path, manifest: Manifest, names: Iterable[str] | None = None
) -> Bundle:
    """Add the hashes of files to a manifest and write it atomically to ``directory``.

    ``names`` are the files of the bundle; None means all files in the directory.
    """
    if names is None:
        names = (p.name for p in directory.iterdir() if p.is_file() and p.name != MANIFEST)
    names = sorted(names)
    stamps = {name: file_stamp(directory / name) for name in names}
    manifest = replace(manifest, files={name: file_sha256(directory / name) for name in names})
    write_json(directory / MANIFEST, asdict(manifest))
    stamps[MANIFEST] = file_stamp(directory / MANIFEST)
    return Bundle(directory, manifest, file_sha256(directory / MANIFEST), stamps)


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
