"""The pages: links lead somewhere, commands exist, words are the field's."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from support import ROOT
from support.pages import generator

from z1_ros import errors
from z1_ros.config import flatten

SKIPPED = {".venv", "build", "runs", "node_modules", ".pytest_cache", "install", "log"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not SKIPPED & set(path.relative_to(ROOT).parts) and "z1_ros" not in path.parent.parts[-2:]
)
PROSE = [p for p in PAGES if p.parts[-2:] != ("docs", "glossary.md") and "models" not in p.parts]
GUIDES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
"""Pages whose commands are today's; results and the lab log quote those of their time."""
REFERENCE = [
    *sorted((ROOT / "docs" / "explanation").glob("*.md")),
    *(ROOT / "docs" / "reference" / f"{name}.md" for name in ("log-fields", "errors")),
    ROOT / "docs" / "reference" / "bundle-manifest.md",
    ROOT / "docs" / "reference" / "topics-and-services.md",
]
FOREIGN_FLAGS = {"--help", "--show-args", "--params-file", "--ros-args", "--symlink-install"}
FOREIGN_FLAGS |= {"--once", "--verbose", "--shm-size"}
PRIVATE = (
    r"lessons?|lanes?|truth|figures?|answer(s|ed)?|advice|films?|drift|mentors?|practi[cs]es?|"
    r"watches|looks again|kept groups|critic explains"
)
"""Words that docs/glossary.md replaces."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    """Return Markdown without code, comments and the targets of links."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
    text = re.sub(r"(?s)`[^`]*`|<!--.*?-->", "", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def slugs(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text("utf-8"))
    headings = re.findall(r"(?m)^#+ +(.*?) *$", text)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", h).replace("`", "").lower() for h in headings]
    return {re.sub(r"[^\w\- ]", "", h).replace(" ", "-") for h in plain}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_and_images_lead_somewhere(path: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        assert aim.exists(), f"{name_of(path)} links to {target}"
        if anchor and aim.suffix == ".md":
            assert anchor in slugs(aim), f"{name_of(path)} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_tables_are_rectangular(path: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text("utf-8"))
    width = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.lstrip().startswith("|") else 0
        assert not (cells and width) or cells == width, f"{name_of(path)}: {line}"
        width = cells


def test_every_page_is_linked_from_the_index_or_the_readme() -> None:
    linked = set()
    for start in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", start.read_text("utf-8")):
            linked.add((start.parent / target).resolve())
    for path in (ROOT / "docs").rglob("*.md"):
        assert path in linked or path.name == "index.md", name_of(path)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_words_are_the_fields_own(path: Path) -> None:
    found = re.search(rf"(?i)\b({PRIVATE})\b", without_code(path.read_text("utf-8")))
    assert found is None, f"{name_of(path)} says {found[0]!r}; see docs/glossary.md"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_page_names_a_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"(?<![\w.~<>-])/(home|root|work|tmp)/", text), name_of(path)


@cache
def flags_of() -> dict[str, set[str]]:
    """Return every command's flags; skips where a command's libraries are missing."""
    for module in ("torch", "matplotlib", "rclpy"):
        pytest.importorskip(module)
    reference = generator()

    return {
        name: {flag for item in reference.settings(cls) for flag in item.flags}
        for name, cls in reference.commands().items()
    }


def shell_lines(path: Path) -> list[str]:
    """Return the command lines in a page's shell blocks, without comments."""
    blocks = re.findall(r"(?ms)^ *```(?:bash|sh)\n(.*?)^ *```", path.read_text("utf-8"))
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


def calls_of(line: str) -> list[tuple[str, list[str]]]:
    """Return the z1 commands in a shell line, ``make demo`` among them, with their words."""
    words = shlex.split(line, comments=True)
    if words[:2] in (["make", "demo"], ["make", "bench"]):
        arguments = [w.removeprefix("ARGS=") for w in words[2:] if w.startswith("ARGS=")]
        rest = shlex.split(arguments[0]) if arguments else []
        return [(f"z1-{words[1]}", rest)] if rest else []
    return [(words[0], words[1:])] if words and words[0].startswith("z1-") else []


@pytest.mark.parametrize("path", GUIDES, ids=name_of)
def test_commands_and_flags_exist(path: Path) -> None:
    known = flags_of()
    for line in shell_lines(path):
        for name, words in calls_of(line):
            command = f"{name} {words[0]}" if name == "z1-bench" else name
            assert command in known, f"{name_of(path)}: no command {command!r} in {line!r}"
            given = {word.split("=")[0] for word in words if word.startswith("--")}
            unknown = given - known[command] - {"--help"}
            assert not unknown, f"{name_of(path)}: {command} has no {sorted(unknown)} in {line!r}"


@pytest.mark.parametrize("path", [*GUIDES, *REFERENCE], ids=name_of)
def test_flags_named_in_a_text_exist(path: Path) -> None:
    known = set().union(*flags_of().values()) | FOREIGN_FLAGS
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text("utf-8"))
    for code in re.findall(r"`([^`\n]+)`", text):
        named = re.findall(r"(?<![\w-])--[a-z][\w.-]*", code)
        assert set(named) <= known, f"{name_of(path)}: {code}"


@pytest.mark.parametrize("path", GUIDES, ids=name_of)
def test_launch_arguments_exist(path: Path) -> None:
    from z1_ros.graph.policy_graph import PolicyGraphConfig
    from z1_ros.graph.train_graph import TrainGraphConfig

    files = {"policy.launch.py": PolicyGraphConfig, "train.launch.py": TrainGraphConfig}
    for line in shell_lines(path):
        words = shlex.split(line, comments=True)
        for file in set(words) & set(files):
            known = flatten(files[file]()).keys()
            given = {word.split(":=")[0] for word in words if ":=" in word}
            assert given <= known, f"{name_of(path)}: {file} has no {sorted(given - known)}"


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_named_commands_are_installed(path: Path) -> None:
    setup = (ROOT / "setup.py").read_text("utf-8")
    known = {f"z1-{name}" for name in re.findall(r'(?m)^    "([\w-]+)": "\w+",$', setup)}
    code = " ".join(re.findall(r"`([^`\n]+)`", path.read_text("utf-8")))
    named = set(re.findall(r"(?<![\w/.-])z1-[a-z]+\b(?![-./])", code))
    assert named <= known, f"{name_of(path)} names {sorted(named - known)}"


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_python_in_pages_compiles(path: Path) -> None:
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", path.read_text("utf-8")):
        ast.parse(block)


def test_every_error_has_its_row() -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    kinds = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.Z1Error)
    ]
    assert [name for name in kinds if f"`{name}`" not in text] == []


def test_every_log_field_is_one_that_training_writes() -> None:
    """By its name in the source, so that a renamed field is renamed in the page too."""
    text = (ROOT / "docs" / "reference" / "log-fields.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)*)", text)
    fields = {field for row in rows for field in re.findall(r"`(\w+)`", row)}
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "z1_ros/learning").rglob("*.py"))
    names = {re.sub(r"_step\d$", "", field) for field in fields}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", source)] == []
