"""``z1-combine``: policies that Z-1 trained task by task, as one bundle.

Each was trained from one base with the VLM left alone, so the new bundle holds the base once and
beside it every policy's action expert; the instruction chooses. For the instructions of a task it
gives the same action chunks as that task's policy, to the bit.
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
from z1_ros.models.bundle.card import CARD
from z1_ros.models.bundle.manifest import WEIGHTS, Bundle, Manifest
from z1_ros.models.bundle.task_experts import (
    TaskExpert,
    denoise_graph,
    is_expert_tensor,
    weights_file,
)
from z1_ros.models.bundle.writer import write_bundle
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
            f"{result.path} cannot be an expert of {base.path}: its tokenizer differs"
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
    """Write one bundle of ``base`` and the experts of ``results``.

    Args:
        base: Gives all but the experts; experts of its own are kept unless ``results`` holds one
            of the same task.
        results: Task -> bundle, checked by ``require_same_base``.
        patterns: Task -> patterns that its instructions match.
        out: Directory to write, see ``write_bundle``.
        export: Export missing graphs.

    Raises:
        BundleError: The bundles' graphs of the prefix differ, so one cannot stand for all.
    """
    copied = dict(_copied(base, results, _shared_prefix(base, results)))

    def fill(folder: Path) -> Manifest:
        for name, source in copied.items():
            shutil.copyfile(source, folder / name)
        for task, result in results.items():
            _write_expert(result, folder / weights_file(task))
        return _manifest(base, results, patterns)

    graphs = (*base.manifest.graphs, *map(denoise_graph, results))
    missing = [graph for graph in dict.fromkeys(graphs) if f"{graph}.onnx" not in copied]
    return write_bundle(out, fill, export=missing if export else ())


def _shared_prefix(base: Bundle, results: Mapping[str, Bundle]) -> Bundle:
    """Return the bundle whose prefix graph is kept: one of the results, else the base.

    Another version of torch may export equal weights to a graph that differs in the last bits.
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
) -> Iterator[tuple[str, Path]]:
    """Yield the name of each file that is copied, and where from."""
    replaced = {weights_file(task) for task in results}
    replaced |= {f"{denoise_graph(task)}.onnx" for task in results}
    for name in base.manifest.files:
        stem = name.removesuffix(".data")
        if name != CARD and stem != PREFIX and stem not in replaced:
            yield name, base.file(name)
    for name in prefix.manifest.files:
        if name.removesuffix(".data") == PREFIX:
            yield name, prefix.file(name)
    for task, result in results.items():
        # A graph names its file of weights, so a graph that has one cannot be renamed.
        files = result.manifest.files
        if "denoise.onnx" in files and "denoise.onnx.data" not in files:
            yield f"{denoise_graph(task)}.onnx", result.file("denoise.onnx")


def _write_expert(result: Bundle, path: Path) -> None:
    with open_weights(result.file(WEIGHTS)) as stream:
        names = [name for name in stream.keys() if is_expert_tensor(name)]  # noqa: SIM118
        write_tensors(path, {name: stream.get_tensor(name) for name in names})


def _manifest(
    base: Bundle,
    results: Mapping[str, Bundle],
    patterns: Mapping[str, tuple[str, ...]],
) -> Manifest:
    experts = {
        task: TaskExpert(
            instructions=patterns[task],
            made_by={**result.manifest.made_by, "bundle": _origin(result)},
        )
        for task, result in results.items()
    }
    combined = {"command": shlex.join(["z1-combine", *sys.argv[1:]]), "base": _origin(base)}
    return replace(
        base.manifest,
        experts={**base.manifest.experts, **experts},
        made_by={**base.manifest.made_by, "combined": combined},
    )


def _origin(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.manifest.name, "sha256": bundle.sha256}
