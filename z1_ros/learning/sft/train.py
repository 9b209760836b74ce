"""``z1-sft``: supervised training of a π0.5 from demonstrations, to a model bundle."""

import os
import platform
import shlex
import shutil
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from z1_ros.errors import ConfigError
from z1_ros.files import write_json
from z1_ros.learning.core.run import open_tensorboard
from z1_ros.learning.core.run_log import CHECKPOINT, RunLog, run_folder
from z1_ros.learning.sft import demos
from z1_ros.learning.sft.config import TrainConfig, without_schedule
from z1_ros.learning.sft.dataset import Frames, load_frames, split_seeds
from z1_ros.learning.sft.start import Start, from_bundle, from_nothing
from z1_ros.learning.sft.trainer import Trainer, validation
from z1_ros.models.bundle.manifest import (
    GRAPHS,
    WEIGHTS,
    ImageSpec,
    Manifest,
    Normalization,
    load_bundle,
)
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.models.bundle.writer import versions, write_bundle
from z1_ros.models.checkpoint.loading import write_tensors
from z1_ros.models.network.geometry import preset
from z1_ros.runtime.lock import locked
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator, parse_tasks
from z1_ros.specs import check_contract, embodiment


@dataclass(frozen=True, kw_only=True, slots=True)
class SFTConfig:
    """Train a policy from demonstrations and write a model bundle."""

    bundle: Path
    """Bundle to write."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator of the tasks."""
    tasks: str = "all"
    """``all``, or task names separated by commas."""
    demos: Path | None = None
    """Folder of demonstrations from z1-demos; if not given, they are collected first."""
    episodes: int = 300
    """Scene seeds per task, if demonstrations are collected."""
    embodiment: str = "panda"
    """Robot, if demonstrations are collected."""
    run: Path | None = None
    """Folder of checkpoints and logs; if not given, next to the bundle: ``<bundle>-run``."""
    init: Path | None = None
    """Bundle to fine-tune, with its cameras, fields, tokenizer and network. If not given, a new
    network is trained from random weights."""
    keep_normalization: bool = False
    """Normalise state and actions with the statistics of ``init``, not of the demonstrations."""
    geometry: Literal["small", "full"] = "small"
    """Sizes of a new network: ``small`` (2.6 M parameters) or ``full`` (the published π0.5)."""
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    """Settings of the optimisation."""
    held_out: float = 0.05
    """Fraction of each task's demonstrations that are used for validation only."""
    denoise_steps: int | None = None
    """Number of denoise steps of the trained policy; if not given, that of ``init``, or 5."""
    replan_steps: int | None = None
    """Number of actions of each chunk that the trained policy executes before it replans; if not
    given, that of ``init``, or 8."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; ``auto`` uses the GPU if there is one."""
    resume: bool = True
    """Continue from the run folder's checkpoint if there is one."""
    export: bool = True
    """Export prefix.onnx and denoise.onnx at the end."""
    json: Path | None = None
    """File to which the final metrics are written."""

    def __post_init__(self) -> None:
        if 0 in (self.denoise_steps, self.replan_steps):
            raise ConfigError("denoise_steps and replan_steps must be at least 1")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}, expected a fraction between 0 and 1")
        if self.keep_normalization and self.init is None:
            raise ConfigError(
                "keep_normalization needs init, the bundle whose normalisation is kept"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is 'cuda' but torch sees no CUDA GPU here")


class _Data(NamedTuple):
    frames: Frames
    held: Frames
    normalization: Normalization
    episodes: int
    held_episodes: int


def main(config: SFTConfig) -> dict[str, Any]:
    """Train, write the bundle and return the final metrics."""
    run = run_folder(config.bundle, config.run)
    with locked(run):
        return _train_bundle(config, run)


def _train_bundle(config: SFTConfig, run: Path) -> dict[str, Any]:
    tasks = parse_tasks(config.tasks, find_simulator(config.robot).tasks)
    console = Console(soft_wrap=True)
    console.print(f"z1-sft: {', '.join(tasks)} to {config.bundle}; checkpoints and log: {run}")
    start, directory = _start(config, run)
    on_gpu = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    device = torch.device("cuda" if on_gpu else "cpu")
    data = _load(config, start, directory, tasks, device)
    fingerprint = {
        "tasks": tasks,
        "geometry": asdict(start.geometry),
        "train": asdict(without_schedule(config.train)),
        "episodes": data.episodes,
        "frames": len(data.frames),
        "held_out": config.held_out,
        "data": demos.digest(directory, tasks),
        "init": start.bundle.sha256 if start.bundle else None,
        "keep_normalization": config.keep_normalization,
    }
    network = start.network(config.train.seed)
    parameters = sum(p.numel() for p in network.parameters())
    trainer = Trainer(network, config.train, len(start.contract.action_dims), device, fingerprint)
    checkpoint = run / CHECKPOINT
    if config.resume and checkpoint.exists():
        trainer.resume(checkpoint)
    metrics: dict[str, Any] = _train(start.denoise_steps, trainer, data, run)

    metrics |= {
        "tasks": tasks,
        "episodes": data.episodes,
        "held_out_episodes": data.held_episodes,
        "frames": len(data.frames),
        "steps": trainer.step,
        "train_minutes": round(trainer.elapsed_s / 60, 2),
        "parameters": parameters,
        "device": _device_name(device),
    }
    header = demos.read_header(directory)

    def fill(folder: Path) -> Manifest:
        write_tensors(folder / WEIGHTS, trainer.weights())
        shutil.copyfile(start.tokenizer, folder / start.tokenizer.name)
        return _manifest(config, header, start, data, metrics)

    made = write_bundle(config.bundle, fill, export=GRAPHS if config.export else ())
    console.print(f"held-out loss {metrics['held_out_loss']:.4f}; written to {made.path}")
    if config.json:
        write_json(config.json, metrics)
    return metrics


def _manifest(
    config: SFTConfig, header: dict[str, Any], start: Start, data: _Data, metrics: dict[str, Any]
) -> Manifest:
    geometry = start.geometry
    made_by = {
        "command": shlex.join(["z1-sft", *sys.argv[1:]]),
        "seed": config.train.seed,
        **metrics,
        **start.described(),
        "train": asdict(config.train),
        "demonstrations": {
            name: header[name] for name in ("frame_stride", "noisy", "image_size", "embodiment")
        },
        "versions": versions("torch", "numpy", "mujoco", "tokenizers"),
    }
    return Manifest(
        name=config.bundle.name,
        embodiment=embodiment(header["embodiment"]).name,
        contract=start.contract,
        image=ImageSpec(size=geometry.image_size, resize=header["resize"], slots=geometry.cameras),
        prompt=start.prompt,
        normalization=data.normalization,
        geometry=asdict(geometry),
        denoise_steps=start.denoise_steps,
        replan_steps=start.replan_steps,
        made_by=made_by,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _start(config: SFTConfig, run: Path) -> tuple[Start, Path]:
    """Return the start of training and the folder of demonstrations; collect missing ones."""
    if config.init is None:
        directory = _demonstrations(config, run, preset(config.geometry).image_size)
        start = from_nothing(demos.read_header(directory), config.geometry, run)
    else:
        bundle = load_bundle(config.init)
        if config.demos is None:  # check the contract first, because collecting takes long
            manifest = bundle.manifest
            check_contract(manifest.contract, embodiment(config.embodiment), manifest.name)
        directory = _demonstrations(config, run, bundle.manifest.image.size)
        start = from_bundle(bundle, demos.read_header(directory))
    replan_steps = config.replan_steps or start.replan_steps
    if replan_steps > start.contract.horizon:
        raise ConfigError(
            f"replan_steps is {replan_steps}, but a chunk has {start.contract.horizon} actions"
        )
    denoise_steps = config.denoise_steps or start.denoise_steps
    return replace(start, denoise_steps=denoise_steps, replan_steps=replan_steps), directory


def _demonstrations(config: SFTConfig, run: Path, image_size: int) -> Path:
    if config.demos is not None:
        return config.demos
    wanted = demos.DemosConfig(
        out=run / "demos",
        robot=config.robot,
        tasks=config.tasks,
        episodes=config.episodes,
        embodiment=config.embodiment,
        image_size=image_size,
    )
    demos.main(wanted)
    return wanted.out


def _load(
    config: SFTConfig, start: Start, directory: Path, tasks: list[str], device: torch.device
) -> _Data:
    """Read training and held-out episodes into memory."""
    episodes, held = split_seeds(directory, tasks, config.held_out)
    normalization = start.normalization(directory, episodes, keep=config.keep_normalization)
    sizes = start.geometry
    tokenizer = PromptTokenizer(start.tokenizer, sizes.prompt_tokens, sizes.vocab)
    shared = (start.contract, normalization, tokenizer, sizes.action_dim)
    frames, held_frames = (
        load_frames(directory, some, *shared, start.prompt.discrete_state).to(device)
        for some in (episodes, held)
    )
    return _Data(frames, held_frames, normalization, len(episodes), len(held))


def _train(denoise_steps: int, trainer: Trainer, data: _Data, run: Path) -> dict[str, float]:
    """Run the training loop with a progress bar and a log; return the last validation."""
    validate = partial(validation, frames=data.held, denoise_steps=denoise_steps)
    final: dict[str, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, TimeRemainingColumn()))
        encoding = progress.add_task("encoding frames", total=1.0, visible=False)
        if trainer.progress < 1:
            trainer.fill_features(
                data.frames, lambda share: progress.update(encoding, completed=share, visible=True)
            )
        bar = progress.add_task("training", total=1.0)
        progress.update(bar, completed=trainer.progress)
        log = RunLog(run, open_tensorboard(run, stack))
        for record in trainer.train(data.frames, run / CHECKPOINT, validate):
            log.append(record, trainer.step)
            final |= {k: v for k, v in record.items() if k.startswith("held_out")}
            text = f"training  step {trainer.step}"
            if "loss" in record:
                text += f"  loss {record['loss']:.4f}  {record['samples_per_s']:.0f} samples/s"
            if final:
                text += f"  held out {final['held_out_loss']:.4f}"
            progress.update(bar, completed=trainer.progress, description=text)
    return final
