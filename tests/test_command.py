"""Every command turns errors into one sentence and an exit code."""

from dataclasses import dataclass

import pytest

from z1_ros.command import run_command
from z1_ros.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings."""

    steps: int = 3
    """Steps."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected 1 or more")


def test_flags_come_from_the_dataclass() -> None:
    seen = []
    assert run_command("z1-x", seen.append, Config, ["--steps", "7"]) == 0
    assert seen == [Config(steps=7)]


def test_a_number_returned_is_the_exit_code() -> None:
    assert run_command("z1-x", lambda config: config.steps, Config, []) == 3


def test_bad_settings_say_what_would_be_right(capsys) -> None:
    with pytest.raises(SystemExit) as error:
        run_command("z1-x", print, Config, ["--steps", "0"])
    assert error.value.code == 2 and "steps is 0, expected 1 or more" in capsys.readouterr().err


def test_an_error_while_running_is_one_sentence(capsys) -> None:
    def failing(config: Config) -> None:
        raise ConfigError("no model bundle at x")

    assert run_command("z1-x", failing, Config, []) == 2
    assert capsys.readouterr().err == "z1-x: no model bundle at x\n"


def test_interruption_is_exit_130() -> None:
    def interrupted(config: Config) -> None:
        raise KeyboardInterrupt

    assert run_command("z1-x", interrupted, Config, []) == 130


def test_unknown_flags_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as error:
        run_command("z1-x", print, Config, ["--stepz", "1"])
    assert error.value.code == 2 and "--stepz" in capsys.readouterr().err
