"""The one writer of bundles: staged beside its place, complete with card and hashes, then renamed."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from z1_ros.files import replace_directory, write_text
from z1_ros.models.bundle.card import CARD, model_card
from z1_ros.models.bundle.manifest import (
    Bundle,
    Manifest,
    load_bundle,
    require_replaceable,
    write_manifest,
)

Fill = Callable[[Path], Manifest]
"""Puts weights, tokenizer and graphs into a directory; returns the manifest that describes them."""


def write_bundle(out: Path, fill: Fill, *, export: Sequence[str] = ()) -> Bundle:
    """Write a bundle whole or not at all; an older one stays until it is replaced.

    Args:
        out: Directory to write; its name becomes the bundle's.
        fill: Called with the staging directory.
        export: Graphs to export from the weights before the bundle appears.

    Raises:
        ConfigError: ``out`` holds something that is no bundle.
    """
    out = out.expanduser().absolute()
    require_replaceable(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = replace(fill(partial), name=out.name)
        write_text(partial / CARD, model_card(manifest, partial))
        made = write_manifest(partial, manifest)
        if export:
            from z1_ros.models.bundle.export import export as export_graphs

            export_graphs(made, export)
        replace_directory(out, by=partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_bundle(out)
