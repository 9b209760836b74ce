"""``z1-combine``: combine policies of several tasks; the instruction selects the action expert."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from z1_ros.errors import ConfigError
from z1_ros.models.bundle.combine import combine, require_same_base, task_of
from z1_ros.models.bundle.manifest import Bundle, load_bundle, require_replaceable
from z1_ros.sim.registry import DEFAULT_SIMULATOR, find_simulator


@dataclass(frozen=True, kw_only=True, slots=True)
class CombineConfig:
    """Put the action experts of several tasks' bundles into one bundle."""

    base: str
    """Bundle that the others were trained from; its own expert handles all other instructions."""
    experts: tuple[str, ...]
    """Bundles that z1-train or z1-teach made, one for each task."""
    out: Path
    """Directory of the bundle to write."""
    robot: str = DEFAULT_SIMULATOR
    """Simulator of the tasks; it defines the instructions of each task."""
    export: bool = True
    """Export the graphs that the given bundles do not contain."""

    def __post_init__(self) -> None:
        find_simulator(self.robot)
        if not self.experts:
            raise ConfigError("experts must name at least one bundle of z1-train or z1-teach")


def main(config: CombineConfig) -> Bundle:
    """Check and combine the bundles, write the new bundle and return it.

    Raises:
        BundleError: A bundle was not trained for one task, or differs from the base in more than
            its action expert.
        ConfigError: Two bundles were trained for the same task.
    """
    require_replaceable(config.out.absolute())
    simulator, base = find_simulator(config.robot), load_bundle(config.base)
    results: dict[str, Bundle] = {}
    for path in config.experts:
        result = load_bundle(path)
        task = task_of(result, simulator.tasks)
        if task in results:
            raise ConfigError(
                f"{results[task].path} and {result.path} are both of task {task}; give one of them"
            )
        require_same_base(result, base)
        results[task] = result
    patterns = {task: simulator.instruction_patterns(task) for task in results}
    made = combine(base, results, patterns, config.out, export=config.export)
    for name, expert in made.manifest.experts.items():
        Console().print(f"{name}: {', '.join(expert.instructions)}")
    Console().print(f"written to {made.path}")
    return made
