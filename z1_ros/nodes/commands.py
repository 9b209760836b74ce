"""Entry points of the installed commands; what a command lacks is one sentence, not a traceback."""

import sys
from collections.abc import Callable
from importlib import import_module

_EXTRAS = dict.fromkeys(
    ("torch", "safetensors", "transformers", "onnx", "onnxscript", "matplotlib"), "train"
)


def _entry(name: str, module: str) -> Callable[[], int]:
    def run() -> int:
        try:
            return import_module(module).cli()
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

    return run


evaluate = _entry("z1-eval", "z1_ros.nodes.evaluate")
demos = _entry("z1-demos", "z1_ros.rl.demos")
sft = _entry("z1-sft", "z1_ros.rl.sft")
train = _entry("z1-train", "z1_ros.nodes.train")
teach = _entry("z1-teach", "z1_ros.rl.teach")
ablate = _entry("z1-ablate", "z1_ros.rl.ablate")
curves = _entry("z1-curves", "z1_ros.rl.curves")
combine = _entry("z1-combine", "z1_ros.rl.combine")
import_checkpoint = _entry("z1-import", "z1_ros.models.importing.command")
export = _entry("z1-export", "z1_ros.models.export_onnx")
bench = _entry("z1-bench", "z1_ros.nodes.bench")
demo = _entry("z1-demo", "z1_ros.nodes.demo")
