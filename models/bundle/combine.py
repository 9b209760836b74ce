"""``z1-combine``: combine policies that were trained for one task each into one bundle.

All policies were trained from the same base bundle with a frozen VLM. The new bundle contains the
base once and the action expert of every policy; the instruction selects the expert. For the
instructions of a task, it computes exactly the same action chunks as the policy of that task.
"""

import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

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

OWN = ("name", "experts", "made_by", "files", "format")
"""Manifest fields that may differ between the base and the bundles to combine with it."""
PREFIX = "prefix.onnx"


def task_of(result: Bundle, known: Collection[str]) -> str:
    """Return the task of a training result; raises BundleError if it is not a ``known`` one."""
    run = result.manifest.made_by.get("z1")
    task = str(run.get("task")) if isinstance(run, Mapping) else ""
    if task not in known or result.manifest.experts:
        raise BundleError(
            f"{result.path} is no result of z1-train or z1-teach for one task (made_by.z1.task is "
            f"{task!r}), so it cannot be an expert"
        )
    return task


def require_same_base(result: Bundle, base: Bundle) -> None:
    """Raise BundleError if a bundle differs from ``base`` in more than its action expert."""
    if differs := next(_differences(result, base), ""):
        raise BundleError(f"{result.path} cannot be an expert of {base.path}: {differs}")


def _differences(result: Bundle, base: Bundle) -> Iterator[str]:
    for name in [field.name for field in fields(Manifest) if field.name not in OWN]:
        one, two = (getattr(bundle.manifest, name) for bundle in (result, base))
        if differs := first_difference(name, one, two):
            yield f"they differ in {differs}"
    own, wanted = (b.manifest.files[b.tokenizer.name] for b in (result, base))
    if own != wanted:
        yield "its tokenizer differs"
    with open_weights(result.file(WEIGHTS)) as one, open_weights(base.file(WEIGHTS)) as two:
        if {*one.keys()} != {*two.keys()}:
            yield "its tensors have other names"
        for name in two.keys():  # noqa: SIM118
            a, b = one.get_tensor(name), two.get_tensor(name)
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                yield (
                    f"{name} is {a.dtype} {tuple(a.shape)}, in the base {b.dtype} {tuple(b.shape)}"
                )
            if not is_expert_tensor(name) and not torch.equal(a, b):
                yield (
                    f"{name}, a weight of the VLM, is not the base's; it was trained jointly or "
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
    """Write one bundle with the weights of ``base`` and the action experts of ``results``.

    Args:
        base: Bundle that all ``results`` were trained from. Its own task experts are kept, except
            those whose task is also in ``results``.
        results: Task -> bundle with the action expert, checked by ``require_same_base``.
        patterns: Task -> patterns that the instructions of the task match.
        out: Directory to write, see ``write_bundle``.
        export: Whether to export the graphs that the bundles do not contain.

    Raises:
        BundleError: The prefix graphs of the bundles differ, so that they cannot share one.
    """
    copied = dict(_copied(base, results, _shared_prefix(base, results)))
    experts = {
        task: TaskExpert(
            instructions=patterns[task],
            made_by={**result.manifest.made_by, "bundle": _origin(result)},
        )
        for task, result in results.items()
    }
    combined = {"command": shlex.join(["z1-combine", *sys.argv[1:]]), "base": _origin(base)}

    def fill(folder: Path) -> Manifest:
        for name, source in copied.items():
            shutil.copyfile(source, folder / name)
        for task, result in results.items():
            with open_weights(result.file(WEIGHTS)) as stream:
                names = filter(is_expert_tensor, stream.keys())
                tensors = {name: stream.get_tensor(name) for name in names}
                write_tensors(folder / weights_file(task), tensors)
        return replace(
            base.manifest,
            experts={**base.manifest.experts, **experts},
            made_by={**base.manifest.made_by, "combined": combined},
        )

    graphs = (*base.manifest.graphs, *map(denoise_graph, results))
    missing = [graph for graph in dict.fromkeys(graphs) if f"{graph}.onnx" not in copied]
    return write_bundle(out, fill, export=missing if export else ())


def _shared_prefix(base: Bundle, results: Mapping[str, Bundle]) -> Bundle:
    """Return the bundle whose prefix graph is copied: one of ``results``, otherwise ``base``.

    Two versions of torch may export the same weights to graphs that differ in rounding.
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
    """Yield the name in the new bundle and the source path of each file to copy."""
    replaced = {PREFIX, *map(weights_file, results)}
    replaced |= {f"{denoise_graph(task)}.onnx" for task in results}
    for name in base.manifest.files:
        if name != CARD and name.removesuffix(".data") not in replaced:
            yield name, base.file(name)
    for name in prefix.manifest.files:
        if name.removesuffix(".data") == PREFIX:
            yield name, prefix.file(name)
    for task, result in results.items():
        # A graph with a separate weight file contains the name of that file, so neither of them
        # can be renamed.
        files = result.manifest.files
        if "denoise.onnx" in files and "denoise.onnx.data" not in files:
            yield f"{denoise_graph(task)}.onnx", result.file("denoise.onnx")


def _origin(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.manifest.name, "sha256": bundle.sha256}
