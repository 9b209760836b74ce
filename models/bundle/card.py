"""Model cards: the README of a bundle with its origin, training, inputs and outputs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from z1_ros.errors import BundleError
from z1_ros.models.bundle.manifest import MANIFEST, STATS_PARTS, WEIGHTS, Manifest, file_sha256
from z1_ros.models.bundle.task_experts import TaskExpert, weights_file
from z1_ros.models.checkpoint.loading import open_weights

CARD = "README.md"
_RESIZE = {
    "area": "area averaging",
    "bilinear": "bilinear without antialiasing, in floating point (LeRobot, openpi in the network)",
    "bilinear_antialias": "Pillow's antialiased bilinear (openpi's serving client)",
}
DISTILLED = "privileged distillation: DAgger from a teacher that reads the simulator's state"
_MODES = {"quantile": "range below to -1 … 1", "mean_std": "z-score"}
_RANGES = {"quantile": ("range", "…"), "mean_std": ("mean ± standard deviation", "±")}


def model_card(manifest: Manifest, directory: Path) -> str:
    """Return the text of the bundle's README.md; raises BundleError if ``made_by`` is malformed."""
    try:
        return _card(manifest, directory)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(
            f"made_by of {manifest.name} is malformed, so no model card can be written: {error!r}"
        ) from error


def _card(manifest: Manifest, directory: Path) -> str:
    made_by = manifest.made_by
    origin = "A policy of π0.5's architecture."
    if made_by.get("weights") == "random":
        origin = "A network of π0.5's architecture with random weights. It was not trained."
    for key, text in (("train", _trained), ("z1", _reinforced), ("source", _imported)):
        if key in made_by:
            origin = text(made_by)
            break
    parts = [f"# {manifest.name}", origin]
    parts += [_experts(manifest, directory)] if manifest.experts else []
    parts += [_interface(manifest), _columns(manifest)]
    return "\n\n".join([*parts, _network(manifest, directory), _files(directory)]) + "\n"


def _trained(made_by: Mapping[str, Any]) -> str:
    train, init = made_by["train"], made_by.get("init")
    rows: dict[str, Any] = {}
    if init:
        rows["started from"] = f"{init['name']} (sha256 `{init['sha256']}`)"
        if "source" in init:
            rows["which came from"] = f"`{init['source']['name']}` ({init['source']['kind']})"
    rows |= {
        "tasks": ", ".join(made_by["tasks"]),
        "command": f"`{made_by['command']}`",
        "seed": made_by["seed"],
        "data": f"{made_by['episodes']} successful demonstrations (scene seeds below 10000), "
        f"{made_by['frames']} frames; {made_by['held_out_episodes']} more held out",
        "training": f"{made_by['steps']} steps of {train['batch_size']} observations × "
        f"{train['draws']} draws, {made_by['train_minutes']} min on {made_by['device']}",
        "held-out loss": f"{made_by['held_out_loss']:.4f}",
        "held-out action error": f"{made_by['held_out_action_error']:.4f} (normalised units)",
        "versions": _versions(made_by),
    }
    return f"""\
A {made_by["parameters"] / 1e6:.2f} M-parameter policy of π0.5's architecture (vision tower,
Gemma-style prefix, adaRMS action expert, flow matching), trained from scripted demonstrations in
the embedded kitchen. Its success rates are those of that kitchen, not of RoboCasa.

{_facts(rows)}

It sees camera images, the instruction and the state below; no object poses and no task ids.
Weights are the exponential moving average.{_notes(made_by)}"""


def _reinforced(made_by: Mapping[str, Any]) -> str:
    return f"""\
A policy improved by reinforcement learning on one task of the embedded kitchen, from the task's
success alone. Its success rates are those of that kitchen, not of RoboCasa.

{_facts(_z1_rows(made_by))}{_notes(made_by)}"""


def _z1_rows(made_by: Mapping[str, Any]) -> dict[str, Any]:
    run, init = made_by["z1"], made_by["init"]
    part = f", its expert {init['expert']}" if init.get("expert") else ""
    return {
        "started from": f"{init['name']} (sha256 `{init['sha256']}`){part}",
        "task": run["task"],
        "method": DISTILLED if {"lesson", "dagger"} & run.keys() else "GRPO",
        "command": f"`{made_by['command']}`",
        "seed": run["seed"],
        "training": f"{run['iteration']} iterations, {run['elapsed_s'] / 60:.1f} min",
        "kept": f"iteration {run['best_iteration']}, success {run['best_success']:.2f} of "
        f"{run['eval'][1]} training-side scenes",
        "versions": _versions(made_by),
    }


def _experts(manifest: Manifest, directory: Path) -> str:
    origin = ""
    if combined := manifest.made_by.get("combined"):
        base = combined["base"]
        origin = (
            f"\n\nPut together by `{combined['command']}`; everything else is that of "
            f"{base['name']} (sha256 `{base['sha256']}`)."
        )
    tables = [_expert(name, expert, directory) for name, expert in manifest.experts.items()]
    return f"""\
## Task experts

The section above is about the VLM and the base expert. An instruction that matches a pattern below
goes to a task expert: an action expert of its own over the same VLM. Any other instruction goes to
the base expert.{origin}

""" + "\n\n".join(tables)


def _expert(name: str, expert: TaskExpert, directory: Path) -> str:
    rows: dict[str, Any] = {"follows": ", ".join(f"`{text}`" for text in expert.instructions)}
    file = directory / weights_file(name)
    if file.is_file():
        rows["parameters"] = f"{weight_facts(file)[0]:,}"
    made_by = expert.made_by
    if "bundle" in made_by:
        rows["made as"] = f"{made_by['bundle']['name']} (sha256 `{made_by['bundle']['sha256']}`)"
    if "z1" in made_by:
        rows |= _z1_rows(made_by)
    return f"### {name}\n\n{_facts(rows)}{_notes(made_by)}"


def _imported(made_by: Mapping[str, Any]) -> str:
    source = made_by["source"]
    rows = {
        "source": f"`{source['name']}`, {source['kind']} checkpoint in the {source['layout']} "
        f"layout, {source['dtype']}",
        "command": f"`{made_by['command']}`",
        "statistics": f"{source['statistics']}: "
        + ", ".join(f"{kind} {mode}" for kind, mode in source["modes"].items()),
        "order of the columns": made_by["order"],
        "versions": _versions(made_by),
    }
    rows |= {f"sha256 of the source's {name}": sha for name, sha in source["sha256"].items()}
    return f"""\
A π0.5 policy of {made_by["parameters"] / 1e6:,.1f} M parameters, imported from a public layout.
Names and file format changed and weights that feed nothing were left out; it was not trained here
and not measured here.

{_facts(rows)}{_notes(made_by)}"""


def _notes(made_by: Mapping[str, Any]) -> str:
    notes = "".join(f"\n- {note}" for note in made_by.get("notes", ()))
    return "\n" + notes if notes else ""


def _interface(manifest: Manifest) -> str:
    contract, image, scaling = manifest.contract, manifest.image, manifest.normalization
    slots: Mapping[str, str | None] = manifest.made_by.get("slots") or {}
    named = {camera: slot for slot, camera in slots.items()}
    cameras = [f"{c} (slot {named[c]})" if c in named else c for c in contract.cameras]
    masked = image.slots - len(cameras)
    state = f"state ({_MODES[scaling.mode]}, 256 bins)"
    if not manifest.prompt.discrete_state:
        state = "no state"
    rows = {
        "robot": f"{manifest.embodiment}, {contract.control_hz:g} Hz",
        "cameras": ", ".join(cameras) + (f"; {masked} masked slots" if masked else ""),
        "images": f"{image.size} × {image.size} px, padded with black, {_RESIZE[image.resize]}",
        "prompt": f"instruction and {state}, {manifest.prompt.max_tokens} tokens",
        "actions": f"{contract.horizon} per chunk, {manifest.replan_steps} executed before the "
        f"next inference; {manifest.denoise_steps} Euler steps",
        "normalisation of the actions": _MODES[scaling.mode_of_actions],
        "form of the normalisation": scaling.form,
    }
    return "## What it needs and gives\n\n" + _facts(rows)


def _columns(manifest: Manifest) -> str:
    contract, scaling = manifest.contract, manifest.normalization
    tables = []
    for title, fields, stats, mode in (
        ("State", contract.state, scaling.state, scaling.mode),
        ("Actions", contract.action, scaling.action, scaling.mode_of_actions),
    ):
        if not fields:
            tables.append(f"{title}: none.")
            continue
        heading, joint = _RANGES[mode]
        rows = [f"| column | {title.lower()} | unit | {heading} |", "|---|---|---|---|"]
        first, second = (getattr(stats, part) for part in STATS_PARTS[mode])
        units = [(name, field.unit) for field in fields for name in field.dim_names]
        for at, (name, unit) in enumerate(units):
            rows.append(f"| {at} | {name} | {unit} | {first[at]:.4g} {joint} {second[at]:.4g} |")
        tables.append("\n".join(rows))
    return "\n\n".join(tables)


def _network(manifest: Manifest, directory: Path) -> str:
    rows: dict[str, Any] = dict(manifest.geometry)
    if (directory / WEIGHTS).is_file():
        count, dtypes = weight_facts(directory / WEIGHTS)
        rows = {"parameters": f"{count:,}", "dtype": " and ".join(sorted(dtypes)), **rows}
    return "## Network\n\n" + _facts(rows)


def weight_facts(path: Path) -> tuple[int, set[str]]:
    """Return the number of parameters of a safetensors file and their dtypes (``F32``, …)."""
    with open_weights(path) as stream:
        views = [stream.get_slice(name) for name in stream.keys()]  # noqa: SIM118
        return sum(math.prod(v.get_shape()) for v in views), {v.get_dtype() for v in views}


def _files(directory: Path) -> str:
    skipped = (CARD, MANIFEST)
    names = sorted(p.name for p in directory.iterdir() if p.is_file() and p.name not in skipped)
    rows = [f"| {name} | `{file_sha256(directory / name)}` |" for name in names]
    title = f"{MANIFEST} holds the hashes of all files, also of graphs that are exported later."
    return "\n".join(["## Files", "", title, "", "| file | sha256 |", "|---|---|", *rows])


def _facts(rows: Mapping[str, Any]) -> str:
    texts = {name: str(value).replace("|", r"\|") for name, value in rows.items()}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {texts[name]} |" for name in texts)])


def _versions(made_by: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in made_by["versions"].items())
