"""π0.5: a vision-language prefix with keys and values, and a flow-matching action expert.

Inference, supervised training and GRPO use the same two stages: ``prefix`` runs once per
observation, ``denoise`` any number of times with its result. Time 1 is noise, time 0 the action.
Source: Physical Intelligence, "π0.5" (arXiv 2504.16054), and openpi ``models/pi0.py`` (pi05).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from z1_ros.models.network.expert import ActionExpert, AdaRMSNorm, TimeMLP
from z1_ros.models.network.gemma import GemmaRMSNorm, PrefixEncoder
from z1_ros.models.network.geometry import Geometry
from z1_ros.models.network.vision import restore_buffers, vision_features, vision_tower


class Prefix(NamedTuple):
    """An encoded observation."""

    k: Tensor
    """Keys (depth, B, kv_heads, P, head_dim), rotated."""
    v: Tensor
    """Values, same shape."""
    valid: Tensor
    """(B, P) bool, true where a token is valid."""

    def repeat(self, times: int) -> "Prefix":
        """Return the prefix of a batch that repeats each sample ``times`` times in a row."""
        k, v = (part.repeat_interleave(times, 1) for part in (self.k, self.v))
        return Prefix(k, v, self.valid.repeat_interleave(times, 0))


class Pi05(nn.Module):
    """The π0.5 network."""

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.geometry = geometry
        self.recompute = False
        self.vision = vision_tower(geometry)
        self.projector = nn.Linear(geometry.vision_width, geometry.vlm_width)
        self.vlm = PrefixEncoder(geometry)
        self.expert = ActionExpert(geometry)
        self.time = TimeMLP(geometry.expert_width)
        self.action_in_proj = nn.Linear(geometry.action_dim, geometry.expert_width)
        self.action_out_proj = nn.Linear(geometry.expert_width, geometry.action_dim)

    @classmethod
    def empty(cls, geometry: Geometry) -> "Pi05":
        """Return a network whose weights use no memory until they are assigned."""
        with torch.device("meta"):
            network = cls(geometry)
        restore_buffers(network.vision)
        network.time.restore_buffers()
        return network

    def cast(self, dtype: torch.dtype) -> "Pi05":
        """Cast the weights for inference and return the network; some parts stay float32.

        As in openpi (``to_bfloat16_for_selected_params``), the norms of VLM and expert, the time
        condition and the action projections stay float32. The vision tower stays float32, too, as
        in LeRobot: rounding it costs more accuracy than rounding all other parts.
        """
        kept = [self.vision, self.projector, self.time, self.action_in_proj, self.action_out_proj]
        kept += [m for m in self.modules() if isinstance(m, (AdaRMSNorm, GemmaRMSNorm))]
        exact = {id(parameter) for module in kept for parameter in module.parameters()}
        for parameter in self.parameters():
            parameter.data = parameter.data.to(torch.float32 if id(parameter) in exact else dtype)
        return self

    @property
    def rope_dtype(self) -> torch.dtype:
        """Precision of the rotary frequencies, float32 unless set.

        bfloat16 reproduces openpi's PyTorch port and LeRobot in bfloat16, where the frequencies are
        a buffer that is cast with the weights.
        """
        return self.expert.rope_dtype

    @rope_dtype.setter
    def rope_dtype(self, dtype: torch.dtype) -> None:
        self.vlm.rope_dtype = self.expert.rope_dtype = dtype

    def checkpoint_gradients(self, enabled: bool = True) -> None:
        """Recompute every layer in the backward pass instead of keeping its activations."""
        self.recompute = self.vlm.recompute = self.expert.recompute = enabled

    def embed_prefix(
        self, images: Tensor, image_mask: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the embedded prefix (B, P, width) and the mask of its valid tokens (B, P).

        Images are (B, cameras, 3, size, size) in [-1, 1] and prompts (B, L) int64. Their masks
        (B, cameras) and (B, L) are false where a camera is missing and on padding.
        """
        batch = images.shape[0]
        patches = self.projector(vision_features(self.vision, images.flatten(0, 1), self.recompute))
        patches = patches.reshape(batch, -1, patches.shape[-1])
        text = self.vlm.embed(tokens)
        embedded = torch.cat([patches.to(text.dtype), text], dim=1)
        image_valid = image_mask.repeat_interleave(self.geometry.image_tokens, dim=1)
        return embedded, torch.cat([image_valid, token_mask], dim=1)

    def prefix(
        self, images: Tensor, image_mask: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> Prefix:
        """Encode observations; arguments as in ``embed_prefix``."""
        embedded, valid = self.embed_prefix(images, image_mask, tokens, token_mask)
        k, v = self.vlm(embedded, valid)
        return Prefix(k, v, valid)

    def denoise(self, x_t: Tensor, time: Tensor, prefix: Prefix) -> Tensor:
        """Return the velocity (B, H, action_dim) at noisy actions x_t and times (B,)."""
        embedded = self.action_in_proj(x_t.to(self.action_in_proj.weight.dtype))
        hidden = self.expert(embedded, self.time(time), *prefix)
        # The last projection stays float32 under autocast, as its error is the error of the action.
        with torch.autocast(hidden.device.type, enabled=False):
            weight, bias = self.action_out_proj.weight, self.action_out_proj.bias
            return F.linear(hidden.float(), weight.float(), bias.float())

    def sample(self, prefix: Prefix, noise: Tensor, steps: int) -> Tensor:
        """Integrate the flow from noise (B, H, action_dim) to actions with Euler steps."""
        x = noise
        for step in range(steps):
            time = torch.full_like(x[:, 0, 0], 1 - step / steps)
            x = x - self.denoise(x, time, prefix) / steps
        return x

    @torch.no_grad()
    def init_weights(self, seed: int) -> "Pi05":
        """Initialise the weights for training from scratch; return the network.

        Norm modulations start at zero as in openpi, so each expert layer starts as the identity.
        The last projection also starts at zero, so padded action dimensions have zero velocity.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or "norm" in name or name == "action_out_proj.weight":
                is_layer_norm = name.startswith("vision") and name.endswith("weight")
                parameter.fill_(1.0 if is_layer_norm else 0.0)
            else:
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values * parameter[0].numel() ** -0.5)
        return self


def noisy_actions(actions: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_t and the velocity target of flow matching.

    ``actions`` (B, H, action_dim) are normalised, ``noise`` is standard normal of the same shape,
    and ``time`` (B,) is in [0, 1]; 1 is noise.
    """
    t = time[:, None, None]
    return t * noise + (1 - t) * actions, noise - actions


def draw_time(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw training times from Beta(1.5, 1) scaled into [0.001, 1] (openpi ``models/pi0.py``)."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return uniform ** (2 / 3) * 0.999 + 0.001
