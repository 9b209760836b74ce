"""Entry points of the installed commands; what a command lacks is one sentence, not a traceback."""

import sys
from collections.abc import Callable
from importlib import import_module

_EXTRAS = dict.fromkeys(
    ("torch", "safetensors", "transformers", "onnx", "onnxscript", "matplotlib"), "train"
)


def _entry(name: str, module: str) -> Callable[[], int]:
    def entry() -> int:
        try:
            return import_module(f"z1_ros.commands.{module}").cli()
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if missing == "rclpy":
                how = "source a ROS 2 installation, or pip install 'ros-jazzy-rclpy[fastrtps]'"
            elif missing in _EXTRAS:
                how = f"pip install 'z1_ros[{_EXTRAS[missing]}]' (`make test` does)"
            else:
                raise
            sys.stderr.write(f"{name} needs {missing}, which is not installed: {how}\n")
            return 2

    return entry


ablate = _entry("z1-ablate", "ablate")
bench = _entry("z1-bench", "bench")
combine = _entry("z1-combine", "combine")
curves = _entry("z1-curves", "curves")
demo = _entry("z1-demo", "demo")
demos = _entry("z1-demos", "demos")
evaluate = _entry("z1-eval", "eval")
export = _entry("z1-export", "export")
import_checkpoint = _entry("z1-import", "import_checkpoint")
run = _entry("z1-run", "run")
sft = _entry("z1-sft", "sft")
teach = _entry("z1-teach", "teach")
train = _entry("z1-train", "train")
