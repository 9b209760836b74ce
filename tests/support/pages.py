"""Loads the generator of the reference pages: it is next to the pages, in no installed package."""

import importlib.util
import sys
from functools import cache
from types import ModuleType

from support import ROOT


@cache
def generator() -> ModuleType:
    """Return the module ``docs/generate.py``."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their types
    spec.loader.exec_module(module)
    return module
