"""The generated reference pages say what the code does."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import tyro
from support import ROOT
from support.pages import generator

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("rclpy")

reference = generator()


def test_pages_are_current() -> None:
    """Run ``python -m docs.generate`` if this fails."""
    command = [sys.executable, "-m", "docs.generate", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore:get_parser")
def test_every_flag_is_one_that_the_command_takes() -> None:
    known = reference.commands()
    assert {"z1-train", "z1-eval", "z1-run", "z1-bench sim"} <= set(known)
    for name, cls in known.items():
        listed = {flag for item in reference.settings(cls) for flag in item.flags}
        parser = tyro.extras.get_parser(cls)
        taken = {
            option
            for action in parser._actions
            for option in action.option_strings
            if option not in ("-h", "--help")
        }
        assert listed == taken, name


@dataclass(frozen=True)
class Inner:
    """How it is done. More words."""

    size_px: int = 3
    """Side | edge [px]."""


@dataclass(frozen=True)
class Base:
    """A command."""

    kind: Literal["a", "b"] = "a"
    """Which."""
    hidden: tyro.conf.Suppress[int] = 0


@dataclass(frozen=True)
class Derived(Base):
    """A further command."""

    inner: Inner = field(default_factory=Inner)
    loud: bool = True
    """Speak ``up``."""
    out: Path | None = None


def test_settings_of_groups_choices_and_inherited_fields() -> None:
    found = {item.name: item for item in reference.settings(Derived)}
    assert list(found) == ["kind", "loud", "out", "inner.size_px"]
    assert found["loud"].flags == ("--loud", "--no-loud")
    assert found["inner.size_px"].flags == ("--inner.size-px",)
    one, group, other = reference._tables(Derived, "flag", reference._flag_row)
    assert r"| `--kind` | `a` \| `b` | `a` | Which. |" in one
    assert "| `--loud`, `--no-loud` | switch | `true` | Speak `up`. |" in one
    assert "| `--out` | path | – |" in one
    assert group == "*How it is done. More words*" and r"Side \| edge [px]." in other


def test_a_stale_page_is_named(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(reference, "PAGES", tmp_path)
    (tmp_path / "commands.md").write_text("old")
    config = reference.ReferenceConfig(check=True)
    assert reference.main(config) == 1
    assert "commands.md is out of date" in capsys.readouterr().out
    assert reference.main(reference.ReferenceConfig()) == 0
    assert reference.main(config) == 0


def test_no_page_names_the_machine_it_was_made_on() -> None:
    for path in (ROOT / "docs" / "reference").glob("*.md"):
        assert not re.search(r"(?<![\w.~-])/(home|root|tmp|work)/", path.read_text("utf-8")), path
