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

from z1_ros.commands import reference

WITHOUT = """
import sys
from z1_ros.commands import reference, stand_ins
sys.meta_path.insert(0, stand_ins.StandIns())
sys.exit(reference.main(reference.ReferenceConfig(check=True)))
"""


def test_pages_are_current() -> None:
    """Run ``python -m z1_ros.commands.reference`` if this fails."""
    command = [sys.executable, "-m", "z1_ros.commands.reference", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pages_are_the_same_without_ros_and_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore:get_parser")
def test_every_flag_is_one_that_the_command_takes() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
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
    found = {item.flag: item for item in reference.settings(Derived)}
    assert list(found) == ["--kind", "--loud", "--out", "--inner.size-px"]
    assert found["--kind"].text == "Which."
    assert found["--loud"].flags == ("--loud", "--no-loud")
    assert found["--loud"].text == "Speak `up`."
    assert found["--out"].default == "–"
    assert found["--inner.size-px"].group.startswith("How it is done.")
    tables = reference._flag_tables(list(found.values()))
    assert r"`a` \| `b`" in tables and r"Side \| edge [px]." in tables


def test_a_stale_page_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    (tmp_path / "commands.md").write_text("old")
    config = reference.ReferenceConfig(out=tmp_path, check=True)
    assert reference.main(config) == 1
    assert "commands.md is out of date" in capsys.readouterr().out
    assert reference.main(reference.ReferenceConfig(out=tmp_path)) == 0
    assert reference.main(config) == 0


def test_no_page_names_the_machine_it_was_made_on() -> None:
    for path in (ROOT / "docs" / "reference").glob("*.md"):
        assert not re.search(r"(?<![\w.~-])/(home|root|tmp|work)/", path.read_text("utf-8")), path
