"""``z1-sft``: supervised training of a small π0.5 from demonstrations, to a model bundle."""

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from z1_ros.command import run_command
from z1_ros.errors import ConfigError
from z1_ros.files import write_json, write_text
from z1_ros.models.checkpoint import write_tensors
from z1_ros.models.geometry import preset
from z1_ros.models.manifest import (
    TOKENIZER,
    WEIGHTS,
    Bundle,
    ImageSpec,
    Manifest,
    Normalization,
    PromptSpec,
    load_bundle,
    write_manifest,
)
from z1_ros.models.pi05 import Pi05
from z1_ros.models.tokenizer import PromptTokenizer, kitchen_tokenizer
from z1_ros.rl import demos
from z1_ros.rl.dataset import Frames, fit_normalization, load_frames, split_seeds
from z1_ros.rl.trainer import TrainConfig, Trainer, validation, without_schedule
from z1_ros.sim.evaluate import parse_tasks
from z1_ros.sim.kitchen import TASKS
from z1_ros.specs import Contract, Field, embodiment

STATE_FIELDS = (
    "end_effector_position_relative",
    "end_effector_rotation_relative",
    "gripper_qpos",
)
"""State that goes into the prompt; joint angles would only make it longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SFTConfig:
    """Train a small policy from demonstrations and write a model bundle."""

    bundle: Path
    """Bundle to write."""
    tasks: str = "all"
    """``all`` or task names with commas between."""
    demos: Path | None = None
    """Demonstrations made by z1-demos; without it they are collected first."""
    episodes: int = 300
    """Scene seeds per task, if demonstrations are collected."""
    embodiment: str = "panda"
    """Robot, if demonstrations are collected."""
    run: Path | None = None
    """Folder of checkpoints and logs; ``runs/<bundle name>`` if not given."""
    geometry: str = "kitchen"
    """Network sizes: ``kitchen`` (2.6 M parameters) or ``full`` (π0.5)."""
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    """Optimisation."""
    held_out: float = 0.05
    """Fraction of each task's demonstrations that only measure the loss."""
    denoise_steps: int = 5
    """Euler steps of the finished policy."""
    replan_steps: int = 8
    """Actions the finished policy executes before it looks again."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    resume: bool = True
    """Continue from the run folder's checkpoint if there is one."""
    export: bool = True
    """Export prefix.onnx and denoise.onnx at the end."""
    json: Path | None = None
    """Write the final figures here."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device is {self.device!r}, expected auto, cpu or cuda")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}, expected a fraction between 0 and 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is 'cuda' but torch sees no CUDA GPU here")


def main(config: SFTConfig) -> dict[str, Any]:
    """Train and write the bundle; returns the final figures."""
    run = config.run or Path("runs") / config.bundle.name
    run.mkdir(parents=True, exist_ok=True)
    tasks = parse_tasks(config.tasks, TASKS)
    directory = _demonstrations(config, run)
    header = demos.read_header(directory)
    contract = contract_of(header, preset(config.geometry).horizon)
    geometry = replace(
        preset(config.geometry), image_size=header["image_size"], cameras=len(contract.cameras)
    )
    write_text(run / TOKENIZER, kitchen_tokenizer())
    tokenizer = PromptTokenizer(run / TOKENIZER, geometry.prompt_tokens)
    train_episodes, held_episodes = split_seeds(directory, tasks, config.held_out)
    normalization = fit_normalization(directory, train_episodes, contract)
    device = _device(config.device)
    shared = (contract, normalization, tokenizer, geometry.action_dim)
    frames = _place(load_frames(directory, train_episodes, *shared), device)
    held = _place(load_frames(directory, held_episodes, *shared), device)

    identity = {
        "tasks": tasks,
        "geometry": asdict(geometry),
        "train": asdict(without_schedule(config.train)),
        "episodes": len(train_episodes),
        "frames": len(frames),
        "held_out": config.held_out,
        "data": demos.digest(directory, tasks),
    }
    network = Pi05(geometry).init_weights(config.train.seed)
    trainer = Trainer(network, config.train, len(contract.action_dims), device, identity)
    checkpoint = run / "checkpoint.safetensors"
    if config.resume and checkpoint.exists():
        trainer.resume(checkpoint)
    figures = _train(config, trainer, frames, held, run, checkpoint)

    figures |= {
        "tasks": tasks,
        "episodes": len(train_episodes),
        "held_out_episodes": len(held_episodes),
        "frames": len(frames),
        "steps": trainer.step,
        "train_minutes": round(trainer.elapsed_s / 60, 2),
        "parameters": sum(p.numel() for p in network.parameters()),
        "device": device_name(device),
    }
    bundle = write_bundle(config, trainer, header, contract, normalization, tokenizer, figures, run)
    if config.export:
        from z1_ros.models.export_onnx import export

        export(bundle)
    if config.json:
        write_json(config.json, figures)
    return figures


def contract_of(header: dict[str, Any], horizon: int) -> Contract:
    """Return the contract of a policy trained on a folder of demonstrations."""

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


def write_bundle(
    config: SFTConfig,
    trainer: Trainer,
    header: dict[str, Any],
    contract: Contract,
    normalization: Normalization,
    tokenizer: PromptTokenizer,
    figures: dict[str, Any],
    run: Path,
) -> Bundle:
    """Write the averaged weights as a bundle; an older one stays whole until it is replaced."""
    geometry = trainer.network.geometry
    partial = config.bundle.with_name(config.bundle.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_tensors(partial / WEIGHTS, trainer.ema)
    shutil.copyfile(run / TOKENIZER, partial / TOKENIZER)
    made_by = {
        "command": shlex.join(["z1-sft", *sys.argv[1:]]),
        "seed": config.train.seed,
        **figures,
        "train": asdict(config.train),
        "demonstrations": {
            name: header[name] for name in ("frame_stride", "noisy", "image_size", "embodiment")
        },
        "versions": {name: version(name) for name in ("torch", "numpy", "mujoco", "tokenizers")}
        | {"python": platform.python_version()},
    }
    write_text(partial / "README.md", model_card(config.bundle.name, made_by))
    manifest = Manifest(
        name=config.bundle.name,
        embodiment=embodiment(header["embodiment"]).name,
        contract=contract,
        image=ImageSpec(size=geometry.image_size, resize=header["resize"], slots=geometry.cameras),
        prompt=PromptSpec(max_tokens=geometry.prompt_tokens),
        normalization=normalization,
        geometry=asdict(geometry),
        denoise_steps=config.denoise_steps,
        replan_steps=config.replan_steps,
        made_by=made_by,
    )
    write_manifest(partial, manifest)
    if config.bundle.exists():
        older = config.bundle.with_name(config.bundle.name + ".older")
        shutil.rmtree(older, ignore_errors=True)
        config.bundle.rename(older)
        partial.rename(config.bundle)
        shutil.rmtree(older)
    else:
        partial.rename(config.bundle)
    return load_bundle(config.bundle)


def model_card(name: str, made_by: dict[str, Any]) -> str:
    """Return the bundle's README: what it is, how it was made, what it cannot do."""
    versions = ", ".join(f"{k} {v}" for k, v in made_by["versions"].items())
    return f"""# {name}

A {made_by["parameters"] / 1e6:.2f} M-parameter policy of π0.5's architecture (vision tower,
Gemma-style prefix, adaRMS action expert, flow matching), trained from scripted demonstrations in
the embedded kitchen. Its success rates are those of that kitchen, not of RoboCasa.

| | |
|---|---|
| tasks | {", ".join(made_by["tasks"])} |
| command | `{made_by["command"]}` |
| seed | {made_by["seed"]} |
| data | {made_by["episodes"]} successful demonstrations (scene seeds below 10000), \
{made_by["frames"]} frames; {made_by["held_out_episodes"]} more held out |
| training | {made_by["steps"]} steps of {made_by["train"]["batch_size"]} observations × \
{made_by["train"]["draws"]} draws, {made_by["train_minutes"]} min on {made_by["device"]} |
| held-out loss | {made_by["held_out_loss"]:.4f} |
| held-out action error | {made_by["held_out_action_error"]:.4f} (normalised units) |
| versions | {versions} |

It sees camera images, end-effector pose relative to the base, finger positions and the
instruction; no object poses and no task ids. Weights are the exponential moving average.
"""


def device_name(device: torch.device) -> str:
    """Return what a model card calls the machine."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _demonstrations(config: SFTConfig, run: Path) -> Path:
    if config.demos is not None:
        return config.demos
    wanted = demos.DemosConfig(
        out=run / "demos",
        tasks=config.tasks,
        episodes=config.episodes,
        embodiment=config.embodiment,
        image_size=preset(config.geometry).image_size,
    )
    demos.main(wanted)
    return wanted.out


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _place(frames: Frames, device: torch.device) -> Frames:
    """Move frames to the device, the images too if they leave half of its memory free."""
    if device.type != "cuda":
        return frames
    free, _ = torch.cuda.mem_get_info(device)
    return frames.to(device, images_too=frames.images.nbytes < free / 2)


def _train(
    config: SFTConfig, trainer: Trainer, frames: Frames, held: Frames, run: Path, checkpoint: Path
) -> dict[str, float]:
    """Run the loop with a progress bar and a log; returns the last validation."""

    def validate(trainer: Trainer) -> dict[str, float]:
        return validation(trainer, held, config.denoise_steps)

    final: dict[str, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, TimeRemainingColumn()))
        bar = progress.add_task("training", total=1.0, completed=trainer.progress)
        log = stack.enter_context((run / "log.jsonl").open("a", encoding="utf-8"))
        board = _tensorboard(run, stack)
        for record in _with_final_validation(trainer, frames, checkpoint, validate):
            log.write(json.dumps(record) + "\n")
            log.flush()
            for name, value in record.items():
                if board is not None:
                    board.add_scalar(name, value, record["step"])
            final |= {k: v for k, v in record.items() if k.startswith("held_out")}
            text = f"training  step {trainer.step}"
            if "loss" in record:
                text += f"  loss {record['loss']:.4f}  {record['samples_per_s']:.0f} samples/s"
            if final:
                text += f"  held out {final['held_out_loss']:.4f}"
            progress.update(bar, completed=trainer.progress, description=text)
    return final


def _with_final_validation(
    trainer: Trainer, frames: Frames, checkpoint: Path, validate: Any
) -> Iterator[dict[str, float]]:
    """Train; a run that was already complete is only validated."""
    if trainer.progress >= 1:
        yield {"step": trainer.step, **validate(trainer)}
    else:
        yield from trainer.train(frames, checkpoint, validate)


def _tensorboard(run: Path, stack: ExitStack) -> Any:
    """Return a TensorBoard writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return stack.enter_context(SummaryWriter(str(run / "tensorboard")))


def cli() -> int:
    """Entry point of ``z1-sft``."""
    return run_command("z1-sft", main, SFTConfig)


if __name__ == "__main__":
    raise SystemExit(cli())
