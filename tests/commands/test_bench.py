"""z1-bench: one command, several benchmarks, each imported when it is asked for."""

import subprocess
import sys

import pytest

from z1_ros.commands import bench

RUN = "import sys; sys.argv[0] = 'z1-bench'\nfrom z1_ros.commands.bench import cli\nsys.exit(cli())"


def run(monkeypatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["z1-bench", *args])
    return bench.cli()


def test_help_lists_the_benchmarks(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["sim", "policy", "load", "rl"]


@pytest.mark.parametrize("name", ["", "memory", "simm"])
def test_an_unknown_benchmark_is_one_sentence(monkeypatch, capsys, name: str) -> None:
    assert run(monkeypatch, *([name] if name else [])) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"z1-bench: no benchmark {name!r}. Known: load, policy, rl, sim.")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["sim", "policy", "load", "rl"])
def test_every_benchmark_has_its_own_flags(name: str) -> None:
    if name in ("policy", "rl"):
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "--json" in done.stdout, done.stderr


def test_the_simulators_benchmark_needs_no_torch() -> None:
    code = "import sys, z1_ros.benchmarks.simulator\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
