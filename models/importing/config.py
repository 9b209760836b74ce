"""Settings of ``z1-import``."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import tyro

from z1_ros.models.bundle.parts import Mode, Resize


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """Make a model bundle from a π0.5 checkpoint of openpi or LeRobot."""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint directory, or a safetensors file."""
    embodiment: str
    """Robot that the bundle is for, e.g. ``panda_omron``."""
    out: Path
    """Bundle to write."""
    overwrite: bool = False
    """Replace the bundle at OUT if there is one."""
    modality: str = ""
    """Order of the columns of state and action: ``ee-first`` or ``base-first`` (RoboCasa's two
    orders), or the path of a modality.json. By default the modality.json in the checkpoint, or the
    robot's own order."""
    state: str = ""
    """Names of the state fields in the checkpoint's order, separated by commas."""
    action: str = ""
    """Names of the action fields in the checkpoint's order, separated by commas."""
    cameras: str = ""
    """Camera of each image slot, as ``slot=camera,slot=camera``. Slots that are left out are
    masked. By default a slot uses the camera of the same name."""
    norm_stats: Path | None = None
    """Normalisation statistics: a norm_stats.json, a data set's stats.json, or the folder of a
    LeRobot policy. By default those in the checkpoint."""
    asset_id: str | None = None
    """Robot whose ``assets/<id>/norm_stats.json`` is used, if a checkpoint has several."""
    norm_mode: Mode | None = None
    """Normalisation of state and actions. By default as LeRobot's files say, or quantile."""
    allow_suspicious_stats: bool = False
    """Import even if the statistics look like those of another known order of columns."""
    discrete_state: bool = True
    """Put the state into the prompt. Switch it off for checkpoints that were trained without it
    (openpi's pi05_libero)."""
    resize: Resize | None = None
    """How images are resized. By default bilinear for LeRobot's checkpoints and bilinear_antialias
    for openpi's."""
    tokenizer: str = ""
    """Tokenizer file, a directory with one, or a Hugging Face repository. By default that of the
    checkpoint, or PaliGemma's."""
    prompt_tokens: int | None = None
    """Tokens that prompts are padded to. By default as the checkpoint says, or 200."""
    horizon: int | None = None
    """Actions per chunk, for a checkpoint that does not define it."""
    vision_heads: int | None = None
    """Attention heads of the vision tower, if it is not the published tower."""
    denoise_steps: int | None = None
    """Euler steps from noise to actions. By default as the checkpoint says, or 10."""
    replan_steps: int | None = None
    """Actions executed before the next inference. By default LeRobot's n_action_steps, or 5."""
    ignore_steps: str = ""
    """Unknown steps of LeRobot's processors to ignore, separated by commas."""
    dtype: Literal["keep", "bfloat16", "float32"] = "keep"
    """Type of the weights. With bfloat16, vision, norms, time and action projections stay float32.
    Weights that change their type must fit into memory: 13 GB for all of π0.5 in float32."""
    json: Path | None = None
    """JSON file to write the decisions to."""

    @property
    def ignored_steps(self) -> tuple[str, ...]:
        """Names in ``ignore_steps``."""
        return tuple(name.strip() for name in self.ignore_steps.split(",") if name.strip())

    @property
    def command(self) -> str:
        """The command line, with file names instead of the paths of this machine."""
        words = ["z1-import", self.checkpoint.expanduser().resolve().name]
        for field in fields(self)[1:]:
            value, flag = getattr(self, field.name), field.name.replace("_", "-")
            if value == field.default or field.name == "json":
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                path = Path(str(value)).expanduser()
                is_path = isinstance(value, Path) or path.is_absolute()
                words += [f"--{flag}", path.name if is_path else str(value)]
        return shlex.join(words)
