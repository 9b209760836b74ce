"""Reading golden data."""

import pytest
import torch
from safetensors.torch import load_file
from support.micro import DATA, MICRO, OPENPI, saved

from z1_ros.errors import CheckpointError
from z1_ros.models.parity.golden import read_golden

GOLDEN = DATA / "golden.safetensors"


def changed(tmp_path, note=None, **tensors):
    kept = {key: t for key, t in (load_file(GOLDEN) | tensors).items() if t is not None}
    return saved(kept, tmp_path / "golden.safetensors", **(note or {}))


def test_sizes_and_inputs_are_told() -> None:
    golden = read_golden(GOLDEN)
    assert golden.precision == "float32" and golden.sizes["horizon"] == MICRO.horizon
    assert golden.sizes["cameras"] == 3 and golden.without_gradient
    images, image_mask, tokens, token_mask = golden.prefix_inputs
    assert images.shape[1:] == (3, 3, MICRO.image_size, MICRO.image_size)
    assert image_mask.dtype == token_mask.dtype == torch.bool and tokens.dtype == torch.int64
    assert golden["in.noise"].dtype == torch.float32


def test_inputs_may_come_from_another_file(tmp_path) -> None:
    without = {key: None for key in load_file(GOLDEN) if key.startswith("in.")}
    path = changed(tmp_path, **without)
    with pytest.raises(CheckpointError, match=r"lacks in.tokens.*with --inputs"):
        read_golden(path)
    assert torch.equal(read_golden(path, GOLDEN)["in.noise"], load_file(GOLDEN)["in.noise"])


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ({"geom": "{"}, "metadata 'geom' is not JSON"),
        ({"geom": "[" * 100_000}, "metadata 'geom' is not JSON"),
        ({"geom": "[]"}, "metadata 'geom' must hold a dict"),
        ({"geom": '{"vocab": "many"}'}, "metadata 'geom' is malformed"),
        ({"geom": '{"vlm": 3}'}, "metadata 'geom' is malformed"),
        ({"geom": '{"vlm": {"width": Infinity}}'}, "metadata 'geom' is malformed"),
        ({"no_grad_params": "{}"}, "metadata 'no_grad_params' must hold a list"),
    ],
)
def test_malformed_metadata_is_named(tmp_path, note, words) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_golden(changed(tmp_path, note))


def test_what_is_no_golden_file_and_shapes_that_differ_are_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no golden data"):
        read_golden(OPENPI)
    with pytest.raises(CheckpointError, match=r"in.time has shape"):
        read_golden(changed(tmp_path, **{"in.time": torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=r"in.noise has 2 dimensions"):
        read_golden(changed(tmp_path, **{"in.noise": torch.zeros(2, 3)}))
