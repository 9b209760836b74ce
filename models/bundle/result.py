"""The bundle that a run of reinforcement learning leaves."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from z1_ros.files import replace_directory, write_text
from z1_ros.models.bundle.card import CARD, model_card
from z1_ros.models.bundle.manifest import WEIGHTS, Bundle, load_bundle, write_manifest
from z1_ros.models.checkpoint.loading import write_tensors


def write_result(
    start: Bundle,
    weights: Mapping[str, Tensor],
    out: Path,
    made_by: Mapping[str, Any],
    graphs: Sequence[str] = (),
    *,
    export: bool = False,
) -> Bundle:
    """Write trained weights as a bundle; an older one stays whole until it is replaced.

    Args:
        start: Bundle that training began from; all but weights, graphs, card and the choice among
            task-wise experts are its own.
        weights: Every weight, by name.
        out: Directory to write.
        made_by: What made it, ready for JSON.
        graphs: Graphs of ``start`` that still hold, as nothing of them was trained.
        export: Make the other graphs.
    """
    out = out.expanduser().absolute()
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_tensors(partial / WEIGHTS, weights)
    for name in start.manifest.files:
        if name.removesuffix(".data") in {f"{graph}.onnx" for graph in graphs}:
            shutil.copyfile(start.file(name), partial / name)
    shutil.copyfile(start.tokenizer, partial / start.tokenizer.name)
    manifest = replace(start.manifest, name=out.name, experts={}, made_by=dict(made_by))
    write_text(partial / CARD, model_card(manifest, partial))
    made = write_manifest(partial, manifest)
    if export:
        from z1_ros.models.bundle.export import GRAPHS
        from z1_ros.models.bundle.export import export as export_graphs

        export_graphs(made, [graph for graph in GRAPHS if graph not in graphs])
    replace_directory(out, by=partial)
    return load_bundle(out)
