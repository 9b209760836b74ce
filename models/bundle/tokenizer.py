r"""Prompts: instruction and state as text, and text as token ids.

The prompt is π0.5's (openpi ``src/openpi/models/tokenizer.py``)::

    Task: {instruction}, State: {bin} {bin} …;\nAction:

A tokenizer is a file: PaliGemma's ``tokenizer.model`` (SentencePiece), as in openpi, or its
``tokenizer.json`` (Hugging Face ``tokenizers``), as in LeRobot; both give the same ids.
``small_tokenizer`` makes the tokenizer of the small geometry, with one token per word and per
state bin.
"""

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace

from z1_ros.errors import BackendUnavailable, BundleError, ConfigError
from z1_ros.files import read_bytes

FILE_LIMIT = 256 << 20
"""Largest tokenizer file that is read [bytes]; PaliGemma's has 35 MB."""
PAD_ID = 0
"""Token id that pads prompts in every π0.5 tokenizer; it has no other use."""
BOS_ID = 2
"""Beginning-of-sequence id of PaliGemma's and of the kitchen's tokenizer; ``PromptTokenizer`` reads
it from the file."""
STATE_BINS = range(-1, 256)
"""State bins; -1 is the bin of values below -1, 255 also of values above 1."""
LONGEST_PIECE = 32
"""Largest number of characters per token."""

# Words of the instructions of RoboCasa's 24 single-stage tasks, and related words.
_WORDS = """
pick the from counter and place it in cabinet on sink located microwave plate pan bowl open close
door doors drawer left right turn off faucet spout to burner of stove front back rear center top
bottom press start stop button coffee machine serve mug under dispenser handle knob switch put take
move into onto a an with is at up down push pull slide rotate grasp release lift set object
container cup pot tray basket cutting board toaster oven fridge refrigerator dishwasher kettle
blender lid rack single double upper lower next side inside
"""
# RoboCasa's object categories, singular.
_OBJECTS = """
apple avocado bagel baguette banana bar barsoap soap beer bell pepper bottle bottled water drink
boxed food box bread broccoli cake can candle canned cantaloupe carrot cereal cheese chicken
breast chips chocolate condiment corn croissant cucumber cupcake cinnamon colander donut egg
eggplant fish fork garlic ginger grapes hot dog honey ice cube jam jug kebab skewer ketchup kiwi
knife ladle lemon lettuce lime liquor lollipop mango marshmallow measuring milk mushroom mustard
onion orange pancake peach pear pineapple pitcher pizza cutter popcorn potato raspberry rolling
pin salt shaker saucepan scissors shrimp skewers spatula sponge spoon spray squash steak straw
strawberry sweet tangerine teapot tofu tomato tongs tupperware waffle watermelon whisk wine yogurt
red green blue yellow white black brown round square small large
"""


def prompt_text(instruction: str, bins: Sequence[int] | None) -> str:
    """Return the prompt of an instruction and state bins (None: no state, as in π0)."""
    cleaned = instruction.strip().replace("_", " ").replace("\n", " ")
    if bins is None:
        return f"{cleaned}\n"
    return f"Task: {cleaned}, State: {' '.join(str(int(b)) for b in bins)};\nAction: "


class _Vocabulary(NamedTuple):
    encode: Callable[[str], list[int]]
    """Function that returns the ids of a text, without beginning or end of sequence."""
    size: int
    """Number that is larger than ``bos`` and every id of a text."""
    bos: int | None
    """Id of the beginning of a sequence."""
    pad: int | None
    """Id of padding."""


def _read_json(path: Path) -> _Vocabulary:
    tokenizer = Tokenizer.from_str(read_bytes(path, FILE_LIMIT).decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # The text "<bos>" in a prompt is encoded as text, as in SentencePiece.
    tokenizer.encode_special_tokens = True
    bos = tokenizer.token_to_id("<bos>")
    # Ignore special tokens: in PaliGemma's file, the id of "<image>" exceeds the network's ids.
    added = [id for id, t in tokenizer.get_added_tokens_decoder().items() if not t.special]
    own = tokenizer.get_vocab_size(with_added_tokens=False)
    return _Vocabulary(
        encode=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        size=1 + max([own - 1, *added, bos or 0]),
        bos=bos,
        pad=tokenizer.token_to_id("<pad>"),
    )


def _read_sentencepiece(path: Path) -> _Vocabulary:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise BackendUnavailable(
            f"{path} needs sentencepiece: pip install sentencepiece"
        ) from error
    model = read_bytes(path, FILE_LIMIT)
    if not model:
        raise ValueError("the file is empty")
    processor = SentencePieceProcessor(model_proto=model)
    return _Vocabulary(
        encode=processor.encode,
        size=processor.get_piece_size(),
        bos=processor.bos_id() if processor.bos_id() >= 0 else None,
        pad=processor.pad_id() if processor.pad_id() >= 0 else None,
    )


class PromptTokenizer:
    """A tokenizer with the fixed length that a network expects."""

    def __init__(self, path: str | Path, max_tokens: int, vocab: int | None = None):
        """Load a SentencePiece ``*.model``, or JSON of Hugging Face ``tokenizers``.

        Prompts are padded to ``max_tokens``. ``vocab`` is the number of token ids of the network.

        Raises:
            BundleError: The file is missing or malformed, or does not fit the network.
            BackendUnavailable: The file needs SentencePiece, which is not installed.
        """
        read = _read_sentencepiece if Path(path).suffix == ".model" else _read_json
        try:
            found = read(Path(path))
        except BackendUnavailable:
            raise
        except Exception as error:  # both libraries raise various exceptions
            raise BundleError(f"{path} is not a tokenizer: {error}") from error
        if found.bos is None or found.pad != PAD_ID:
            raise BundleError(
                f"{path} is not a tokenizer for π0.5 prompts: <bos> has id {found.bos} and <pad> "
                f"has id {found.pad}, PaliGemma's have {BOS_ID} and {PAD_ID}"
            )
        if vocab is not None and found.size > vocab:
            raise BundleError(
                f"{path} gives ids up to {found.size - 1}, but the network embeds only {vocab}: "
                "it belongs to another network"
            )
        self._bos, self._encode = found.bos, found.encode
        self.vocab = found.size
        """Number of token ids that prompts can have."""
        self.max_tokens = max_tokens
        self._warned: set[str] = set()

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, beginning-of-sequence first, without padding or truncation."""
        return [self._bos, *self._encode(text)]

    def encode(self, instruction: str, bins: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Tokenise the prompt of an instruction and state bins (None: no state).

        A too long instruction is truncated at its end; the state after it is never truncated.

        Returns:
            Token ids (max_tokens,) int64, padded with 0, and their mask (max_tokens,) bool, true
            where a token is valid.

        Raises:
            ConfigError: Even a prompt without an instruction is too long.
        """
        ids = self._prompt_ids(instruction, bins)
        if len(ids) > self.max_tokens:
            ids = self._shortened(instruction, bins)
        tokens = np.full(self.max_tokens, PAD_ID, np.int64)
        tokens[: len(ids)] = ids
        return tokens, np.arange(self.max_tokens) < len(ids)

    def _prompt_ids(self, instruction: str, bins: Sequence[int] | None) -> list[int]:
        text = prompt_text(instruction, bins)
        if bins is not None:
            return self.ids(text)
        # openpi encodes the final line break separately, so that it never merges with other text.
        return [*self.ids(text[:-1]), *self._encode(text[-1])]

    def _shortened(self, instruction: str, bins: Sequence[int] | None) -> list[int]:
        """Return the ids of the prompt with the longest beginning of the instruction that fits."""

        def fit(length: int) -> bool:
            return len(self._prompt_ids(instruction[:length], bins)) <= self.max_tokens

        if not fit(0):
            raise ConfigError(
                f"state and frame need more than the {self.max_tokens} tokens a prompt may have"
            )
        fits = bisect_left(range(1, len(instruction)), True, key=lambda length: not fit(length))
        # A whole word may need fewer tokens than its beginning.
        ahead = range(min(fits + LONGEST_PIECE, len(instruction) - 1), fits, -1)
        fits = next(filter(fit, ahead), fits)
        if instruction not in self._warned:
            self._warned.add(instruction)
            logging.getLogger(__name__).warning(
                "instruction cut to %r: a prompt holds %d tokens",
                instruction[:fits],
                self.max_tokens,
            )
        return self._prompt_ids(instruction[:fits], bins)


def small_tokenizer() -> str:
    """Return the small tokenizer as JSON text.

    It has one piece per known word (lower case and capitalised), per state bin and per fixed part
    of the prompt. Other text is encoded as ASCII characters or bytes.
    """
    words = (_WORDS + _OBJECTS).split()
    whole = [
        *(f"▁{b}" for b in STATE_BINS),
        *("▁Task:", "▁State:", ";\nAction:", "▁"),
        *(f"▁{w}" for word in words for w in (word, word.capitalize())),
        *("s", "es", "ing"),
    ]
    characters = [chr(c) for c in range(33, 127)] + ["\n"]
    # The scores prevent that text such as "<bos>" is encoded as a control piece.
    control = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = dict.fromkeys(control, -1000.0) | dict.fromkeys(whole, -1.0)
    pieces |= {character: -10.0 for character in characters if character not in pieces}
    tokenizer = Tokenizer(
        Unigram([*pieces.items()], unk_id=control.index("<unk>"), byte_fallback=True)
    )
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    )
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=0)
