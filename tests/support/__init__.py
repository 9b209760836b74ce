"""What tests share: fakes, tiny models, golden data, graphs of fake nodes."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DATA = TESTS / "data"
