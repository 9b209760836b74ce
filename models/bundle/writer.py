"""Writes bundles with card and hashes to a staging folder, then moves them to their target."""

import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from z1_ros.errors import BundleError
from z1_ros.files import real_place, staged_directory, write_text
from z1_ros.models.bundle.card import CARD, model_card
from z1_ros.models.bundle.manifest import (
    GRAPHS,
    WEIGHTS,
    Bundle,
    Manifest,
    load_bundle,
    require_replaceable,
    write_manifest,
)
from z1_ros.models.checkpoint.loading import write_tensors

Fill = Callable[[Path], Manifest]
"""Function that writes weights, tokenizer and graphs to a directory and returns the manifest."""


def write_bundle(out: Path, fill: Fill, *, export: Sequence[str] = ()) -> Bundle:
    """Write a bundle atomically; an older bundle stays until it is replaced.

    The name of ``out`` becomes the bundle's name. If it is a link, its target is replaced.
    The graphs in ``export`` are exported from the weights before that.

    Raises:
        ConfigError: ``out`` contains something other than a bundle.
        BundleError: The files cannot be written.
    """
    require_replaceable(out)
    place = real_place(out)
    try:
        with staged_directory(place) as partial:
            manifest = replace(fill(partial), name=place.name)
            write_text(partial / CARD, model_card(manifest, partial))
            made = write_manifest(partial, manifest)
            if export:
                # The export module imports slowly and needs libraries that may be missing.
                from z1_ros.models.bundle.export import export as export_graphs

                export_graphs(made, export)
    except OSError as error:
        raise BundleError(f"{out} cannot be written: {error}") from error
    return load_bundle(place)


def write_result(
    start: Bundle,
    weights: Mapping[str, Tensor],
    out: Path,
    made_by: Mapping[str, Any],
    graphs: Sequence[str] = (),
    *,
    export: bool = False,
) -> Bundle:
    """Write the weights of a training run as a bundle; errors as in ``write_bundle``.

    Args:
        start: Bundle that training started from. All is copied from it except weights, graphs, card
            and task experts.
        weights: Every weight, by name.
        out: Directory to write.
        made_by: Origin of the new bundle, JSON-compatible.
        graphs: Graphs of ``start`` to copy, because their weights were not trained.
        export: Whether to export the other graphs.
    """

    def fill(folder: Path) -> Manifest:
        write_tensors(folder / WEIGHTS, weights)
        kept = {start.tokenizer.name, *(f"{graph}.onnx" for graph in graphs)}
        for name in start.manifest.files:
            if name in kept or name.removesuffix(".data") in kept:
                shutil.copyfile(start.file(name), folder / name)
        return replace(start.manifest, experts={}, made_by=dict(made_by))

    missing = [graph for graph in GRAPHS if graph not in graphs] if export else []
    return write_bundle(out, fill, export=missing)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages and of Python, for ``made_by``."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}
