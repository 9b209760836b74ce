r"""Prompts: instruction and state as text, and text as token ids.

The prompt is π0.5's (openpi ``src/openpi/models/tokenizer.py``)::

    Task: {instruction}, State: {bin} {bin} …;\nAction:

Any tokenizer in the Hugging Face ``tokenizers`` JSON format can be loaded; ``kitchen_tokenizer``
makes the small one that the small geometry uses, with one token per word and per state bin.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from z1_ros.errors import BundleError, ConfigError

PAD_ID = 0
BOS_ID = 2
STATE_BINS = range(-1, 256)
"""-1 stands for values below -1; 255 also for values above 1."""

# The instructions of RoboCasa's 24 single-stage tasks, and words close to them.
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


class PromptTokenizer:
    """A tokenizer with the fixed length that a network expects."""

    def __init__(self, path: str | Path, max_tokens: int):
        """Load a tokenizer.

        Args:
            path: ``tokenizer.json`` in the Hugging Face ``tokenizers`` format.
            max_tokens: Length that prompts are padded to.

        Raises:
            BundleError: The file is missing or malformed.
        """
        try:
            self._tokenizer = Tokenizer.from_str(Path(path).read_text("utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path} is not a tokenizer: {error}") from error
        self.max_tokens = max_tokens
        self._warned: set[str] = set()

    @property
    def vocab(self) -> int:
        """Number of token ids."""
        return self._tokenizer.get_vocab_size()

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, beginning-of-sequence first, neither padded nor cut."""
        return [BOS_ID, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def encode(self, instruction: str, bins: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Tokenise a prompt.

        Args:
            instruction: What to do. Cut at its end if the prompt would be too long: the state
                behind it is never cut.
            bins: State bins, or None for prompts without state.

        Returns:
            Token ids (max_tokens,) int64, padded with 0, and their validity (max_tokens,) bool.

        Raises:
            ConfigError: Not even a prompt without an instruction fits.
        """
        ids = self.ids(prompt_text(instruction, bins))
        if len(ids) > self.max_tokens:
            ids = self._shortened(instruction, bins)
        tokens = np.full(self.max_tokens, PAD_ID, np.int64)
        tokens[: len(ids)] = ids
        return tokens, np.arange(self.max_tokens) < len(ids)

    def _shortened(self, instruction: str, bins: Sequence[int] | None) -> list[int]:
        for length in range(len(instruction) - 1, -1, -1):
            ids = self.ids(prompt_text(instruction[:length], bins))
            if len(ids) <= self.max_tokens:
                self._warn_once(instruction, length)
                return ids
        raise ConfigError(
            f"the state alone needs more than the {self.max_tokens} tokens a prompt may have"
        )

    def _warn_once(self, instruction: str, length: int) -> None:
        if instruction not in self._warned:
            self._warned.add(instruction)
            logging.getLogger(__name__).warning(
                "instruction cut to %r: a prompt holds %d tokens",
                instruction[:length],
                self.max_tokens,
            )


def kitchen_tokenizer() -> str:
    """Return the small tokenizer as JSON text.

    One piece per known word (lower case and capitalised), state bin and part of the prompt's
    frame; single ASCII characters and, behind them, bytes make every other text possible.
    """
    words = (_WORDS + _OBJECTS).split()
    whole = [
        *(f"▁{b}" for b in STATE_BINS),
        *("▁Task:", "▁State:", ";\nAction:", "▁"),
        *(f"▁{w}" for word in words for w in (word, word.capitalize())),
        *("s", "es", "ing"),
    ]
    characters = [chr(c) for c in range(33, 127)] + ["\n"]
    # The scores keep text that merely spells a control piece, such as "<bos>", out of it.
    control = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = dict.fromkeys(control, -1000.0) | dict.fromkeys(whole, -1.0)
    pieces |= {character: -10.0 for character in characters if character not in pieces}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": metaspace,
            "post_processor": None,
            "decoder": {
                "type": "Sequence",
                "decoders": [{"type": "ByteFallback"}, metaspace, {"type": "Fuse"}],
            },
            "model": {
                "type": "Unigram",
                "unk_id": control.index("<unk>"),
                "vocab": [[piece, score] for piece, score in pieces.items()],
                "byte_fallback": True,
            },
        },
        ensure_ascii=False,
        indent=0,
    )
