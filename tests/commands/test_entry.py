"""The installed commands say what they lack."""

import os
import re
import subprocess
import sys

import pytest
from support import ROOT

from z1_ros.commands import entry as commands


@pytest.mark.parametrize(
    ("command", "missing", "words"),
    [
        ("sft", "torch", "z1-sft needs torch"),
        ("train", "torch", "z1-train needs torch"),
        ("export", "torch", "z1-export needs torch"),
        ("curves", "matplotlib", "z1-curves needs matplotlib"),
        ("combine", "torch", "z1-combine needs torch"),
        ("import_checkpoint", "torch", "z1-import needs torch"),
        ("demo", "rclpy", "source a ROS 2 installation"),
    ],
)
def test_a_missing_library_is_one_sentence(command: str, missing: str, words: str) -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        f"            raise ModuleNotFoundError('no', name={missing!r})\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from z1_ros.commands import entry as commands\n"
        "sys.argv = ['x', '/nowhere']\n"
        f"sys.exit(commands.{command}())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


def test_setup_names_every_command() -> None:
    text = (ROOT / "setup.py").read_text("utf-8")
    names = [
        name for name, value in vars(commands).items() if getattr(value, "__name__", "") == "entry"
    ]
    declared = re.findall(r'^    "[\w-]+": "(\w+)",$', text, re.MULTILINE)
    assert sorted(names) == sorted(declared) and "combine" in names
