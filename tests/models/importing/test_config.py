"""Settings of an import, and the command line that stands in the bundle."""

import shlex
from pathlib import Path

from z1_ros.config import descriptions
from z1_ros.models.importing.config import ImportConfig


def config(**changed) -> ImportConfig:
    given = {"checkpoint": Path("/data/pi05_base"), "embodiment": "panda", "out": Path("/tmp/b")}
    return ImportConfig(**(given | changed))


def test_the_command_names_what_was_set_and_no_folder_of_the_machine() -> None:
    made = config(
        norm_stats=Path("/secret/norm_stats.json"),
        tokenizer="/secret/tokenizer.json",
        modality="ee-first",
        discrete_state=False,
        overwrite=True,
        vision_heads=4,
        json=Path("/secret/decided.json"),
    )
    words = shlex.split(made.command)
    assert words[:2] == ["z1-import", "pi05_base"]
    assert "--no-discrete-state" in words and "--overwrite" in words and "--json" not in words
    assert words[words.index("--norm-stats") + 1] == "norm_stats.json"
    assert "secret" not in made.command


def test_steps_to_ignore_are_separated_by_commas() -> None:
    assert config().ignored_steps == ()
    assert config(ignore_steps="log, crop ,").ignored_steps == ("log", "crop")


def test_every_setting_is_described_by_whole_sentences() -> None:
    for name, text in descriptions(ImportConfig).items():
        assert text[0].isupper() and text.endswith("."), name
