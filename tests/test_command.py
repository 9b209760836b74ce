"""Every command turns whatever ends it into one sentence and an exit code."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from z1_ros.command import run_command
from z1_ros.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings."""

    steps: int = 3
    """Steps."""
    delay_ms: float = 0.0
    """Delay of an action chunk,
    in milliseconds [ms]."""
    through: Literal["inproc", "ros"] = "inproc"
    """Way."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needy:
    """Settings without defaults."""

    bundle: str
    """Bundle."""
    out: str
    """Where to."""


def test_flags_come_from_the_dataclass() -> None:
    seen = []
    assert run_command("z1-x", seen.append, Config, ["--steps", "7"]) == 0
    assert seen == [Config(steps=7)]


def test_a_number_returned_is_the_exit_code() -> None:
    assert run_command("z1-x", lambda config: config.steps, Config, []) == 3


@pytest.mark.parametrize("in_colours", [False, True])
@pytest.mark.parametrize(
    ("config", "args", "sentence"),
    [
        (Config, "--steps 0", "steps is 0, expected 1 or more"),
        (Config, "--steps a", "--steps is 'a', expected a whole number"),
        (Config, "--delay-ms a", "--delay-ms is 'a', expected a number"),
        (Config, "--delay-ms nan", "--delay-ms is nan, expected a number"),
        (Config, "--steps", "--steps needs a value"),
        (Config, "--stepz 1", "unknown: --stepz, 1. Did you mean --steps?"),
        (Config, "--through rso", "--through is 'rso'. Known: inproc, ros. Did you mean 'ros'?"),
        (Needy, "", "--bundle, --out are required"),
        (Needy, "--out x", "--bundle is required"),
        (Needy, "--out x --bundel y", "--bundle is required; unknown: --bundel, y"),
    ],
)
def test_a_wrong_flag_is_one_sentence(
    config: type, args: str, sentence: str, in_colours: bool, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: in_colours)
    assert run_command("z1-x", print, config, args.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"z1-x: {sentence}") and said.count("\n") == 1


def test_help_shows_the_flags(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run_command("z1-x", print, Config, ["--help"]) == 0
    said = capsys.readouterr().out
    assert "--delay-ms FLOAT" in said
    assert "Delay of an action chunk, in milliseconds [ms]." in said


@dataclass(frozen=True, kw_only=True, slots=True)
class Reporting:
    """Settings of a command that writes a report."""

    json: Path | None = None
    """Write the report here."""


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    args = ["--json", str(tmp_path / "file" / "r.json")]
    assert run_command("z1-x", lambda config: pytest.fail("began"), Reporting, args) == 2
    assert "is not a folder" in capsys.readouterr().err


class SafetensorError(Exception):
    """Named as what safetensors raises."""


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (ConfigError("no model bundle at x"), "no model bundle at x", 2),
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), "a.npz: the disk is full", 2),
        (OSError(errno.EACCES, "Permission denied", "a"), "a: Permission denied", 2),
        (OSError("what a library says"), "what a library says", 2),
        (
            SafetensorError('I/O error: No space left on device (os error 28) at path "b/m"'),
            "b/m: the disk is full",
            2,
        ),
        (MemoryError(), "not enough memory", 2),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
            "not enough memory: DefaultCPUAllocator: can't allocate memory: you tried to",
            2,
        ),
        (KeyboardInterrupt(), "interrupted", 130),
        (
            ModuleNotFoundError("no", name="peft"),
            "peft is not installed: pip install 'z1_ros[lora]' (`make test` does)",
            2,
        ),
    ],
)
def test_what_ends_a_command_is_one_sentence(
    error: BaseException, sentence: str, code: int, capsys
) -> None:
    def failing(config: Config) -> None:
        raise error

    assert run_command("z1-x", failing, Config, []) == code
    assert capsys.readouterr().err == f"z1-x: {sentence}\n"


def broken(config: Config) -> None:
    raise KeyError("weight\nof something")


def test_a_bug_says_where_and_how_to_see_more(capsys, monkeypatch) -> None:
    assert run_command("z1-x", broken, Config, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("z1-x: internal error, please report it: KeyError: 'weight")
    assert "tests/test_command.py:" in said and "Z1_TRACEBACK=1" in said and said.count("\n") == 1
    monkeypatch.setenv("Z1_TRACEBACK", "1")
    assert run_command("z1-x", broken, Config, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.splitlines()[-1].startswith("z1-x: internal")


# From here on in processes of their own: what Python itself says at its end counts too.

START = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from z1_ros.command import run_command
from z1_ros.commands import entry
from rich.console import Console
from rich.table import Table

@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    'π0.5 – settings'
    out: Path = Path('x')

"""
TABLE = START + (
    "def main(config):\n"
    "    table = Table(title='π0.5 … 95 % → ±2 日')\n"
    "    table.add_column('task'); table.add_row('OpenDrawer – done')\n"
    "    Console().print(table)\n"
    "    for n in range(3000): print('line', n)\n"
    "    config.out.write_text('result')\n"
    "sys.exit(run_command('z1-x', main, Config))\n"
)


def start(code: str, *args: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_narrow_terminal_still_gets_a_table_and_a_result(tmp_path: Path, encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    process = start(TABLE, "--out", tmp_path / "r", stdout=subprocess.PIPE, env=env)
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    assert (tmp_path / "r").read_text() == "result"
    wanted = {"ascii": "pi0.5 ... 95 % -> +/-2 ?", "latin-1": "pi0.5 ... 95 % -> ±2 ?"}
    assert wanted.get(encoding, "π0.5 … 95 % → ±2 日") in " ".join(shown.decode(encoding).split())


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_help_fits_any_terminal(encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    process = start(TABLE, "--help", stdout=subprocess.PIPE, env=env)
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"") and b"--out PATH" in shown


def test_a_reader_that_leaves_does_not_end_the_work(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(TABLE, "--out", tmp_path / "r", stdout=write)
    os.close(write)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    assert (tmp_path / "r").read_text() == "result"


@pytest.mark.parametrize("args", [[], ["--help"]], ids=["run", "help"])
def test_a_full_disk_behind_standard_output_is_said(tmp_path: Path, args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(TABLE, "--out", tmp_path / "r", *args, stdout=full)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, b"z1-x: standard output: the disk is full\n")
    assert args or (tmp_path / "r").read_text() == "result"


def test_closed_standard_streams_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "r"
    command = [sys.executable, "-c", TABLE, "--out", str(path)]
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], timeout=60)
    assert done.returncode == 0 and path.read_text() == "result"


WAITING = START + (
    "def main(config):\n"
    "    try:\n"
    "        print('working', flush=True); time.sleep(60)\n"
    "    finally:\n"
    "        print('cleaning up', flush=True); time.sleep(SECONDS)\n"
    "sys.exit(run_command('z1-x', main, Config))\n"
)


def until(process: subprocess.Popen, words: bytes) -> None:
    assert process.stdout is not None and process.stdout.readline().strip() == words


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_ends_it_and_a_second_one_does_not_wait(times: int) -> None:
    code = WAITING.replace("SECONDS", "0" if times == 1 else "60")
    process = start(code, stdout=subprocess.PIPE)
    until(process, b"working")
    process.send_signal(signal.SIGINT)
    until(process, b"cleaning up")
    began_s = time.monotonic()
    for _ in range(times - 1):
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, b"z1-x: interrupted\n")
    assert time.monotonic() - began_s < 20


def test_ctrl_c_while_python_shuts_down_is_one_sentence() -> None:
    """Threads and exit handlers take time; from the entry on Ctrl-C is always answered."""
    code = START + (
        "import atexit\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))\n"
        "import z1_ros.commands.eval as module\n"
        "module.main = lambda config: 0\n"
        "module.main.__annotations__ = {'config': Config}\n"
        "sys.argv = ['z1-eval']\n"
        "sys.exit(entry.evaluate())\n"
    )
    process = start(code, stdout=subprocess.PIPE)
    until(process, b"ending")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, b"z1-eval: interrupted\n")


def test_a_full_disk_is_said_whoever_writes(tmp_path: Path) -> None:
    """safetensors, which is written in Rust, raises an error of its own."""
    pytest.importorskip("safetensors")
    code = START + (
        "import resource, signal\n"
        "import numpy as np\n"
        "from safetensors.numpy import save_file\n"
        "def main(config):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "    save_file({'a': np.zeros(9999)}, config.out)\n"
        "sys.exit(run_command('z1-x', main, Config))\n"
    )
    process = start(code, "--out", tmp_path / "m", stdout=subprocess.PIPE)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith(b"z1-x: ") and b"File too large" in said and said.count(b"\n") == 1


def test_callers_keep_their_streams_and_handlers(capsys) -> None:
    before: tuple[object, Callable] = (sys.stdout, signal.getsignal(signal.SIGINT))
    assert run_command("z1-x", lambda config: None, Config, []) == 0
    assert (sys.stdout, signal.getsignal(signal.SIGINT)) == before
