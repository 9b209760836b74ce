"""Sizes of a π0.5 network. A small network uses other sizes and the same code."""

from dataclasses import dataclass, fields

from z1_ros.errors import ConfigError, closest
from z1_ros.files import shown

MAX_WIDTH = 1 << 18
MAX_PIXELS = 1 << 24
"""Largest number of tokens of all images of an observation together."""
LARGEST = {
    "image_size": 4096,
    "cameras": 64,
    "depth": 128,
    "vision_depth": 128,
    "vocab": 1 << 22,
    "prompt_tokens": 4096,
    "horizon": 1000,
    "action_dim": 4096,
}
"""Largest allowed sizes, several times those of any published network; for other sizes it is
``MAX_WIDTH``. A file with larger sizes is damaged; building its network could use all memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """Every size of the network; the defaults are the published π0.5 (3.35 B parameters).

    Source: openpi ``src/openpi/models/{gemma,siglip,pi0_config}.py``.
    """

    image_size: int = 224
    """Side of the square model image [px]."""
    patch: int = 14
    """Side of a vision patch [px]."""
    cameras: int = 3
    """Image slots."""
    vision_width: int = 1152
    """Width of the vision tower."""
    vision_depth: int = 27
    """Layers of the vision tower."""
    vision_heads: int = 16
    """Attention heads of the vision tower."""
    vision_mlp: int = 4304
    """Hidden width of the vision tower's feed-forward blocks."""
    depth: int = 18
    """Layers of VLM and expert: layer l of the expert attends to the keys of VLM layer l."""
    heads: int = 8
    """Query heads of VLM and expert."""
    kv_heads: int = 1
    """Key/value heads of VLM and expert."""
    head_dim: int = 256
    """Width of one head of VLM and expert."""
    vlm_width: int = 2048
    """Width of the VLM."""
    vlm_mlp: int = 16384
    """Hidden width of the VLM's feed-forward blocks."""
    expert_width: int = 1024
    """Width of the action expert."""
    expert_mlp: int = 4096
    """Hidden width of the expert's feed-forward blocks."""
    vocab: int = 257_152
    """Token ids of the text embedding."""
    prompt_tokens: int = 200
    """Tokens that prompts are padded to."""
    horizon: int = 50
    """Actions per chunk."""
    action_dim: int = 32
    """Numbers per action; unused numbers at the end are padding."""

    def __post_init__(self) -> None:
        """Raise ConfigError if sizes are out of range or do not fit together."""
        for field in fields(self):
            value, largest = getattr(self, field.name), LARGEST.get(field.name, MAX_WIDTH)
            if type(value) is not int or not 1 <= value <= largest:
                raise ConfigError(
                    f"geometry: {field.name} is {shown(value)}, expected a whole number from 1 to "
                    f"{largest}"
                )
        for whole, part in (
            ("image_size", "patch"),
            ("vision_width", "vision_heads"),
            ("heads", "kv_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ConfigError(
                    f"geometry: {whole} {getattr(self, whole)} is not a multiple of "
                    f"{part} {getattr(self, part)}"
                )
        if self.head_dim % 2 or self.expert_width % 2:
            raise ConfigError("geometry: head_dim and expert_width must be even")
        if self.cameras * self.image_size**2 > MAX_PIXELS:
            raise ConfigError(
                f"geometry: {self.cameras} cameras of {self.image_size} × {self.image_size} px are "
                f"more than {MAX_PIXELS} px"
            )

    @property
    def image_tokens(self) -> int:
        """Tokens per camera."""
        return (self.image_size // self.patch) ** 2

    @property
    def prefix_tokens(self) -> int:
        """Tokens of images and prompt together."""
        return self.cameras * self.image_tokens + self.prompt_tokens


FULL = Geometry()
"""The published π0.5."""

SMALL = Geometry(
    image_size=96,
    patch=16,
    vision_width=128,
    vision_depth=4,
    vision_heads=4,
    vision_mlp=384,
    depth=4,
    head_dim=32,
    vlm_width=128,
    vlm_mlp=256,
    expert_width=128,
    expert_mlp=256,
    vocab=1088,
    prompt_tokens=48,
    horizon=16,
    action_dim=12,
)
"""2.6 M parameters; trains on two CPU cores and infers a chunk in tens of milliseconds there."""

PRESETS = {"full": FULL, "small": SMALL}


def preset(name: str) -> Geometry:
    """Return a named geometry; raises ConfigError listing the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"no geometry {name!r}. {closest(name, PRESETS)}")
    return PRESETS[name]
