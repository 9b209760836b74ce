"""The installed commands say what they lack."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from z1_ros.commands import entry as commands


@pytest.mark.parametrize(
    ("command", "missing", "words"),
    [
        ("sft", "torch", "z1-sft: torch is not installed"),
        ("train", "torch", "z1-train: torch is not installed"),
        ("export", "torch", "z1-export: torch is not installed"),
        ("curves", "matplotlib", "z1-curves: matplotlib is not installed"),
        ("combine", "torch", "z1-combine: torch is not installed"),
        ("import_checkpoint", "torch", "z1-import: torch is not installed"),
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
    done = run("-c", code)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


def test_setup_names_every_command() -> None:
    text = (ROOT / "setup.py").read_text("utf-8")
    declared = dict(re.findall(r'^    "([\w-]+)": "(\w+)",$', text, re.MULTILINE))
    assert {name: getattr(commands, function) for name, function in declared.items()} == (
        commands.COMMANDS
    )
    assert "combine" in declared


def test_every_command_has_its_module() -> None:
    modules = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    assert {"import_checkpoint" if n == "import" else n for n in commands.COMMANDS} <= modules


def test_an_unknown_command_is_named_with_what_exists() -> None:
    done = run("-m", "z1_ros.commands", "evall")
    assert done.returncode == 2 and "Did you mean 'eval'?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["bench", "eval", "train"])
def test_help_into_a_closed_pipe_is_silent(command: str) -> None:
    """``z1-train --help | head`` has shown what was asked for."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "z1_ros.commands", command, "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, said = process.communicate(timeout=100)
    assert "Traceback" not in said and "BrokenPipe" not in said
    assert process.returncode == (0 if said == "" else 2), said  # 2: a library is missing here


def test_ctrl_c_while_libraries_are_imported_is_one_sentence(tmp_path: Path) -> None:
    """Even if a library swallows KeyboardInterrupt, as some do."""
    (tmp_path / "tyro.py").write_text(
        "import time\n"
        "print('importing', flush=True)\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except BaseException:\n"
        "    pass\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "z1_ros.commands", "eval"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "z1-eval: interrupted\n")


def test_a_background_job_goes_on_ignoring_ctrl_c() -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from z1_ros.commands import entry\n"
        "import sys; sys.argv = ['x', '--help']\n"
        "entry.evaluate()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=100, env=os.environ
    )
