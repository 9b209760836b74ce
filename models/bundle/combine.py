"""``z1-combine``: policies that Z-1 trained task by task, as one bundle.

Each was trained from one base with the VLM left alone, so the new bundle holds the base once and
beside it every policy's action expert; the instruction chooses. Its answers to the instructions of
a task are those of that task's policy to the bit.
"""

import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from z1_ros.errors import BundleError, first_difference
from z1_ros.files import replace_directory, write_text
from z1_ros.models.bundle.card import CARD, model_card
from z1_ros.models.bundle.manifest import (
    WEIGHTS,
    Bundle,
    Manifest,
    load_bundle,
    write_manifest,
)
from z1_ros.models.bundle.task_experts import (
    TaskExpert,
    denoise_graph,
    is_expert_tensor,
    weights_file,
)
from z1_ros.models.checkpoint.loading import open_weights, write_tensors

SHARED = (
    "embodiment",
    "contract",
    "image",
    "prompt",
    "normalization",
    "geometry",
    "denoise_steps",
    "replan_steps",
)
"""What of a manifest must be the base's own."""
PREFIX = "prefix.onnx"


def task_of(result: Bundle, known: Collection[str]) -> str:
    """Return which of the ``known`` tasks a bundle was trained for; raises BundleError if none."""
    run = result.manifest.made_by.get("z1")
    task = str(run.get("task")) if isinstance(run, Mapping) else ""
    if task not in known or result.manifest.experts:
        raise BundleError(
            f"{result.path} is no result of z1-train or z1-teach for one task (made_by.z1.task is "
            f"{task!r}), so it cannot be an expert"
        )
    return task


def require_same_base(result: Bundle, base: Bundle) -> None:
    """Raise BundleError unless a bundle differs from ``base`` by its action expert alone."""
    for name in SHARED:
        one, two = (getattr(bundle.manifest, name) for bundle in (result, base))
        if differs := first_difference(name, one, two):
            raise BundleError(
                f"{result.path} cannot be an expert of {base.path}: they differ in {differs}"
            )
    own, wanted = (b.manifest.files[b.tokenizer.name] for b in (result, base))
    if own != wanted:
        raise BundleError(
            f"{result.path} cannot be an expert of {base.path}: its tokenizer is another"
        )
    with ExitStack() as stack:
        one, two = (stack.enter_context(open_weights(b.file(WEIGHTS))) for b in (result, base))
        if {*one.keys()} != {*two.keys()}:
            raise BundleError(
                f"{result.path} cannot be an expert of {base.path}: its tensors have other names"
            )
        for name in two.keys():  # noqa: SIM118
            _require_same_tensor(
                name, one, two, f"{result.path} cannot be an expert of {base.path}"
            )


def _require_same_tensor(name: str, one: Any, two: Any, refusal: str) -> None:
    a, b = one.get_tensor(name), two.get_tensor(name)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        raise BundleError(
            f"{refusal}: {name} is {a.dtype} {tuple(a.shape)}, in the base {b.dtype} "
            f"{tuple(b.shape)}"
        )
    if not is_expert_tensor(name) and not torch.equal(a, b):
        raise BundleError(
            f"{refusal}: {name}, a weight of the VLM, is not the base's; it was trained jointly or "
            "from another base"
        )


def combine(
    base: Bundle,
    results: Mapping[str, Bundle],
    patterns: Mapping[str, tuple[str, ...]],
    out: Path,
    *,
    export: bool = True,
) -> Bundle:
    """Write one bundle of ``base`` and the experts of ``results``, atomically.

    Args:
        base: Gives all but the experts; experts of its own are kept unless ``results`` holds one
            of the same task.
        results: Task -> bundle, checked by ``require_same_base``.
        patterns: Task -> patterns that its instructions match.
        out: Directory to write; an older one stays whole until it is replaced.
        export: Export missing graphs.

    Raises:
        BundleError: The bundles' graphs of the prefix differ, so one cannot stand for all.
    """
    prefix = _shared_prefix(base, results)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for source, name in _copied(base, results, prefix):
            shutil.copyfile(source, partial / name)
        for task, result in results.items():
            _write_expert(result, partial / weights_file(task))
        manifest = _manifest(base, results, patterns, out.name)
        write_text(partial / CARD, model_card(manifest, partial))
        made = write_manifest(partial, manifest)
        missing = [g for g in manifest.graphs if f"{g}.onnx" not in made.manifest.files]
        if missing and export:
            from z1_ros.models.bundle.export import export as export_graphs

            export_graphs(made, missing)
        replace_directory(out, by=partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_bundle(out)


def _shared_prefix(base: Bundle, results: Mapping[str, Bundle]) -> Bundle:
    """Return the bundle whose graph of the prefix all shall use: the results' own, or the base's.

    Equal weights, but exported by other versions of torch, may give other last bits.
    """
    found = {r.manifest.files[PREFIX]: r for r in results.values() if PREFIX in r.manifest.files}
    if len(found) > 1:
        one, two = sorted(str(result.path) for result in found.values())[:2]
        raise BundleError(
            f"{one} and {two} hold different {PREFIX} of the same weights: export both anew with "
            "one version of z1-export"
        )
    return next(iter(found.values()), base)


def _copied(
    base: Bundle, results: Mapping[str, Bundle], prefix: Bundle
) -> Iterator[tuple[Path, str]]:
    """Yield each file to copy and its new name."""
    replaced = {weights_file(task) for task in results}
    replaced |= {f"{denoise_graph(task)}.onnx" for task in results}
    for name in base.manifest.files:
        stem = name.removesuffix(".data")
        if name != CARD and stem != PREFIX and stem not in replaced:
            yield base.path / name, name
    for name in prefix.manifest.files:
        if name.removesuffix(".data") == PREFIX:
            yield prefix.path / name, name
    for task, result in results.items():
        # A graph names the file of weights beside it, so one that has such cannot be renamed.
        files = result.manifest.files
        if "denoise.onnx" in files and "denoise.onnx.data" not in files:
            yield result.path / "denoise.onnx", f"{denoise_graph(task)}.onnx"


def _write_expert(result: Bundle, path: Path) -> None:
    with open_weights(result.file(WEIGHTS)) as stream:
        names = [name for name in stream.keys() if is_expert_tensor(name)]  # noqa: SIM118
        write_tensors(path, {name: stream.get_tensor(name) for name in names})


def _manifest(
    base: Bundle,
    results: Mapping[str, Bundle],
    patterns: Mapping[str, tuple[str, ...]],
    name: str,
) -> Manifest:
    experts = {
        task: TaskExpert(
            instructions=patterns[task],
            made_by={**result.manifest.made_by, "bundle": _identity(result)},
        )
        for task, result in results.items()
    }
    combined = {"command": shlex.join(["z1-combine", *sys.argv[1:]]), "base": _identity(base)}
    return replace(
        base.manifest,
        name=name,
        experts={**base.manifest.experts, **experts},
        made_by={**base.manifest.made_by, "combined": combined},
    )


def _identity(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.manifest.name, "sha256": bundle.sha256}
