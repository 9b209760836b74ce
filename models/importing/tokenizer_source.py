"""Gets a bundle's tokenizer from a file, a folder or the Hugging Face hub."""

import re
import shutil
from pathlib import Path

from z1_ros.errors import BundleError
from z1_ros.files import staged_file
from z1_ros.models.bundle.manifest import SENTENCEPIECE, TOKENIZER
from z1_ros.models.bundle.tokenizer import PromptTokenizer

KINDS = {".json": TOKENIZER, ".model": SENTENCEPIECE}
# The last name is the file name of openpi's own download.
FILES = (TOKENIZER, SENTENCEPIECE, "paligemma_tokenizer.model")
PALIGEMMA = "google/paligemma-3b-pt-224"
"""Repository of the published models' tokenizer on the hub; its licence has to be accepted."""
OR_LOCAL = f"give a local {TOKENIZER} or {SENTENCEPIECE} (PaliGemma's) instead"


def fetch_tokenizer(source: str, directory: Path) -> str:
    """Copy a tokenizer into a bundle's directory; return its file name there.

    ``source`` is a ``tokenizer.json``, a SentencePiece ``*.model``, a directory with one of them,
    or a repository on the Hugging Face hub such as ``google/paligemma-3b-pt-224``.

    Raises:
        BundleError: The tokenizer is missing or malformed, or the hub is unreachable or refuses.
    """
    file = _local(source) or _download(source)
    PromptTokenizer(file, max_tokens=1)
    name = KINDS[file.suffix]
    with staged_file(directory / name) as partial:
        shutil.copyfile(file, partial)
    return name


def _local(source: str) -> Path | None:
    """Return the tokenizer file at or in ``source``, None for a hub repository."""
    path = Path(source).expanduser()
    if path.is_dir():
        for name in FILES:
            if (path / name).is_file():
                return path / name
        raise BundleError(f"{path} holds no tokenizer: none of {', '.join(FILES)}")
    if path.is_file():
        if path.suffix not in KINDS:
            raise BundleError(f"{path} is no tokenizer file: expected *.json or *.model")
        return path
    if path.suffix in KINDS or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise BundleError(
            f"no tokenizer at {source!r}: expected a file *.json or *.model, a directory with one, "
            f"or a Hugging Face repository such as {PALIGEMMA!r}"
        )
    return None


def _download(repository: str) -> Path:
    """Download the tokenizer of a hub repository; return the path of the cached file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    for name in (TOKENIZER, SENTENCEPIECE):
        try:
            return Path(hf_hub_download(repository, name))
        except GatedRepoError as error:
            raise BundleError(
                f"the Hugging Face hub refuses {repository!r}: accept its licence at "
                f"https://huggingface.co/{repository} and set HF_TOKEN to your access token, "
                f"or {OR_LOCAL}"
            ) from error
        except RepositoryNotFoundError as error:
            raise BundleError(
                f"the Hugging Face hub knows no repository {repository!r}, or shows it only to its "
                f"members: check the name, set HF_TOKEN, or {OR_LOCAL}"
            ) from error
        except LocalEntryNotFoundError as error:
            raise BundleError(
                f"{name} of {repository!r} is not in the local cache and the Hugging Face hub "
                f"cannot be reached: go online, or {OR_LOCAL}"
            ) from error
        except EntryNotFoundError:
            continue
        except OSError as error:
            raise BundleError(f"{name} of {repository!r} could not be fetched: {error}") from error
    raise BundleError(
        f"{repository!r} on the Hugging Face hub has neither {TOKENIZER} nor {SENTENCEPIECE}"
    )
