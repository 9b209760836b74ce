"""The torch networks of a bundle: with the base expert or with one of its task experts."""

from copy import deepcopy

import torch
from torch import nn

from z1_ros.errors import BundleError, closest
from z1_ros.models.bundle.manifest import WEIGHTS, Bundle
from z1_ros.models.bundle.task_experts import BASE, EXPERT_PARTS, VLM_PARTS, weights_file
from z1_ros.models.checkpoint.loading import assign, load_network, read_tensors
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.pi05 import Pi05


def load_bundle_network(
    bundle: Bundle, expert: str = BASE, dtype: torch.dtype | None = None
) -> Pi05:
    """Return a verified bundle's network with the expert of that name (``manifest.expert_for``).

    The expert's weights are copied from the mapped file. The rounding of a matrix product depends
    on the memory alignment of its factors, and an expert must give equal numbers from any file.
    ``dtype`` is that of ``Pi05.cast``; None keeps the types of the file.

    Raises:
        BundleError: The bundle has no such expert.
        CheckpointError: The weights do not fit the bundle's geometry.
    """
    network = load_network(bundle.file(WEIGHTS), Geometry(**bundle.manifest.geometry), dtype)
    for part in EXPERT_PARTS:
        setattr(network, part, deepcopy(getattr(network, part)))
    return with_expert(network, bundle, expert) if expert else network


def with_expert(network: Pi05, bundle: Bundle, expert: str) -> Pi05:
    """Return a network with an expert of ``bundle``; it shares its VLM with ``network``.

    Raises:
        BundleError: The bundle has no such expert.
        CheckpointError: The tensors of the expert do not fit the network.
    """
    if expert not in bundle.manifest.experts:
        raise BundleError(
            f"bundle {bundle.path} has no expert {expert!r}. "
            f"{closest(expert, bundle.manifest.experts)}"
        )
    other = Pi05.empty(network.geometry)
    for part in VLM_PARTS:
        setattr(other, part, getattr(network, part))
    for part in EXPERT_PARTS:
        setattr(other, part, deepcopy(getattr(network, part)))
    path = bundle.file(weights_file(expert))
    own = nn.ModuleDict({part: getattr(other, part) for part in EXPERT_PARTS}).state_dict()
    assign(own, read_tensors(path), str(path))
    return other
