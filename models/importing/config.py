"""Settings of ``z1-import``."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """Make a model bundle of a π0.5 checkpoint of openpi or LeRobot."""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint directory, or a safetensors file."""
    embodiment: str
    """Robot that the bundle is for, e.g. ``panda_omron``."""
    out: Path
    """Bundle to write."""
    overwrite: bool = False
    """Replace an existing bundle."""
    modality: str = ""
    """Order of the flat state and action: ``ee-first`` or ``base-first`` (RoboCasa's two), or a
    modality.json; without it, modality.json in the checkpoint or the robot's own order."""
    state: str = ""
    """State fields in the checkpoint's order, commas between."""
    action: str = ""
    """Action fields in the checkpoint's order, commas between."""
    cameras: str = ""
    """``slot=camera,…``; slots left out are masked. Without it, by name."""
    norm_stats: Path | None = None
    """norm_stats.json, a data set's stats.json, or LeRobot's processors; else the checkpoint's."""
    asset_id: str | None = None
    """Which of several ``assets/<id>/norm_stats.json``."""
    norm_mode: Literal["quantile", "mean_std"] | None = None
    """Normalisation of state and actions; else as LeRobot's files say, else quantile."""
    allow_suspicious_stats: bool = False
    """Go on although the statistics look like those of another known order."""
    discrete_state: bool = True
    """State in the prompt; off for checkpoints trained without it (openpi's pi05_libero)."""
    resize: Literal["area", "bilinear", "bilinear_antialias"] | None = None
    """How images are resized; else bilinear (LeRobot) or bilinear_antialias (openpi)."""
    tokenizer: str = ""
    """File, directory or Hugging Face id; else the checkpoint's, else PaliGemma's."""
    prompt_tokens: int | None = None
    """Tokens prompts are padded to; else as the checkpoint says, else 200."""
    horizon: int | None = None
    """Actions per chunk, where the checkpoint does not say."""
    vision_heads: int | None = None
    """Attention heads of the vision tower, where it is not the published one."""
    denoise_steps: int | None = None
    """Euler steps; else as the checkpoint says, else 10."""
    replan_steps: int | None = None
    """Actions executed before the next inference; else LeRobot's n_action_steps, else 5."""
    ignore_steps: str = ""
    """Unknown steps of LeRobot's processors to pass over, commas between."""
    dtype: Literal["keep", "bfloat16", "float32"] = "keep"
    """Of the weights. bfloat16 leaves vision, norms, time and action projections in float32; what
    changes its type has to fit into memory, 13 GB for all of π0.5 in float32."""
    json: Path | None = None
    """Write what was decided here."""

    @property
    def ignored_steps(self) -> tuple[str, ...]:
        """Names in ``ignore_steps``."""
        return tuple(name.strip() for name in self.ignore_steps.split(",") if name.strip())

    @property
    def command(self) -> str:
        """The command line, with names instead of this machine's paths."""
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
