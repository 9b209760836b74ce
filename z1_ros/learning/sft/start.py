"""Start of supervised training: random weights, or a model bundle to fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from z1_ros.errors import ConfigError
from z1_ros.files import write_text
from z1_ros.learning.sft.dataset import Episode, fit_normalization
from z1_ros.models.bundle.manifest import TOKENIZER, WEIGHTS, Bundle, Normalization, PromptSpec
from z1_ros.models.bundle.tokenizer import small_tokenizer
from z1_ros.models.checkpoint.loading import load_network
from z1_ros.models.network.geometry import Geometry, preset
from z1_ros.models.network.pi05 import Pi05
from z1_ros.specs import Contract, Field, check_contract, embodiment

STATE_FIELDS = (
    "end_effector_position_relative",
    "end_effector_rotation_relative",
    "gripper_qpos",
)
"""State fields in a new policy's prompt; joint angles are left out to keep the prompt short."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A policy before training; the user may set other denoise_steps and replan_steps."""

    contract: Contract
    geometry: Geometry
    prompt: PromptSpec
    tokenizer: Path
    denoise_steps: int = 5
    replan_steps: int = 8
    bundle: Bundle | None = None
    """Bundle with the initial weights; None: random weights."""

    def network(self, seed: int) -> Pi05:
        """Return the initial network; random weights depend on ``seed``."""
        if self.bundle is None:
            return Pi05(self.geometry).init_weights(seed)
        return load_network(self.bundle.file(WEIGHTS), self.geometry)

    def normalization(
        self, directory: Path, episodes: Sequence[Episode], *, keep: bool
    ) -> Normalization:
        """Return the bundle's normalisation if ``keep``, else one with the episodes' statistics.

        Mode and form are those of the bundle in both cases.
        """
        own = self.bundle.manifest.normalization if self.bundle else None
        if own and keep:
            return own
        fitted = fit_normalization(directory, episodes, self.contract)
        return replace(own, state=fitted.state, action=fitted.action) if own else fitted

    def described(self) -> dict[str, Any]:
        """Return the origin of the weights, for ``made_by`` in the manifest."""
        if self.bundle is None:
            return {}
        manifest = self.bundle.manifest
        made_by = manifest.made_by
        origin = {"name": manifest.name, "sha256": self.bundle.sha256}
        # If the bundle was fine-tuned from another one, keep the source of the first import.
        source = made_by.get("source") or made_by.get("init", {}).get("source")
        if source:
            origin["source"] = source
        return {"init": origin}


def from_nothing(header: dict[str, Any], geometry: str, run: Path) -> Start:
    """Return a new policy for a folder of demonstrations; its tokenizer is written to ``run``."""
    sizes = preset(geometry)
    contract = contract_of(header, sizes.horizon)
    sizes = replace(sizes, image_size=header["image_size"], cameras=len(contract.cameras))
    write_text(run / TOKENIZER, small_tokenizer())
    return Start(
        contract=contract,
        geometry=sizes,
        prompt=PromptSpec(max_tokens=sizes.prompt_tokens),
        tokenizer=run / TOKENIZER,
    )


def from_bundle(bundle: Bundle, header: dict[str, Any]) -> Start:
    """Return a bundle's policy as the start of fine-tuning on a folder of demonstrations.

    Raises ContractMismatch if the demonstrations lack cameras or fields that the bundle needs or
    have other actions or another rate, ConfigError if their images have another size.
    """
    manifest = bundle.manifest
    check_contract(manifest.contract, embodiment(header["embodiment"]), manifest.name)
    if header["image_size"] != manifest.image.size:
        raise ConfigError(
            f"the demonstrations' images have {header['image_size']} px, model {manifest.name!r} "
            f"needs {manifest.image.size}; collect them with --image-size {manifest.image.size}"
        )
    return Start(
        contract=manifest.contract,
        geometry=Geometry(**manifest.geometry),
        prompt=manifest.prompt,
        tokenizer=bundle.tokenizer,
        denoise_steps=manifest.denoise_steps,
        replan_steps=manifest.replan_steps,
        bundle=bundle,
    )


def contract_of(header: dict[str, Any], horizon: int) -> Contract:
    """Return the contract of a new policy for a folder of demonstrations."""

    def fields(kind: str) -> dict[str, Field]:
        return {
            f["name"]: Field(name=f["name"], dims=tuple(f["dims"]), unit=f["unit"])
            for f in header[kind]
        }

    state = fields("state")
    return Contract(
        cameras=tuple(header["cameras"]),
        state=tuple(state[name] for name in STATE_FIELDS),
        action=tuple(fields("action").values()),
        control_hz=header["control_hz"],
        horizon=horizon,
    )
