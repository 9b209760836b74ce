"""Empty stand-ins for libraries that are not installed, so that modules can be read all the same.

Only ``z1_ros.commands.reference`` uses them: it wants the dataclasses, and runs nothing.
"""

import importlib.abc
import importlib.machinery
import types
from typing import Any, ClassVar

OPTIONAL = (
    *("torch", "safetensors", "transformers", "onnx", "onnxscript", "matplotlib", "peft"),
    *("rclpy", "launch", "launch_ros", "std_msgs", "std_srvs", "sensor_msgs", "geometry_msgs"),
    *("diagnostic_msgs", "lifecycle_msgs", "rosgraph_msgs", "rcl_interfaces"),
    *("builtin_interfaces", "ament_index_python"),
)
"""Libraries that some commands need and that their flags do not."""


class _StandIn:
    """Takes the place of anything in a library that is not installed."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> "_StandIn":
        return self

    def __getattr__(self, name: str) -> "_StandIn":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _: Any) -> "_StandIn":
        return self

    def __mro_entries__(self, _: Any) -> tuple[()]:
        return ()

    __or__ = __ror__ = __call__


class _StandInModule(types.ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn()


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for each optional library that is not installed."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Return a module for an optional library, None for any other."""
        if name.split(".")[0] not in OPTIONAL:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return an empty module."""
        return _StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: the module is complete."""
