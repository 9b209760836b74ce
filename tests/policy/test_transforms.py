"""State, actions and prompts on their way into and out of a network; whole observations."""

import hashlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DATA as DATA_ROOT

from z1_ros.errors import BackendUnavailable, ConfigError
from z1_ros.models.bundle.manifest import Bundle, Manifest, load_bundle
from z1_ros.models.bundle.parts import (
    Normalization,
    NormStats,
    PromptSpec,
)
from z1_ros.models.bundle.tokenizer import PromptTokenizer
from z1_ros.policy.transforms import (
    Preprocessor,
    normalize,
    one_hemisphere,
    state_bins,
    stats_of,
    unnormalize,
)
from z1_ros.specs import Field
from z1_ros.types import Observation

GOLDEN = json.loads((DATA_ROOT / "processor" / "processor_golden.json").read_text("utf-8"))
UNTIMED = settings(deadline=None)


def golden_stats(feature: str) -> NormStats:
    stats = GOLDEN["stats"][feature]
    return NormStats(**{name: tuple(stats[name]) for name in ("mean", "std", "q01", "q99")})


def test_state_is_normalised_as_the_published_processor_does_constant_dimension_included():
    value = normalize(np.array(GOLDEN["raw_state"]), golden_stats("observation.state"), "quantile")
    assert value.dtype == np.float32
    assert np.array_equal(value, np.array(GOLDEN["normalized_state"], np.float32))
    bins = [int(b) for b in GOLDEN["prompt"].split("State: ")[1].split(";")[0].split()]
    assert state_bins(value).tolist() == bins


def test_actions_are_unnormalised_as_the_published_processor_does():
    value = unnormalize(np.array(GOLDEN["action_normalized"]), golden_stats("action"), "quantile")
    assert value.dtype == np.float32
    assert np.array_equal(value, np.array(GOLDEN["action_unnormalized"], np.float32))


def test_bins_have_the_published_edges():
    values = np.array([-1.01, -1.0, -0.9999, 0.0, 0.9999, 1.0, 5.0])
    assert state_bins(values).tolist() == [-1, 0, 0, 128, 255, 255, 255]


def moving_stats(seed: int, size: int = 5) -> NormStats:
    """Return statistics of dimensions that move, of very different scales."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.uniform(-3, 3, size)
    values = random.normal(random.normal(), 1, (300, size)) * scale
    return stats_of(values)


def sample(stats: NormStats, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(stats.mean, stats.std, (40, len(stats.mean))).astype(np.float32)


SEEDS = st.integers(0, 2**32 - 1)
FORMS = pytest.mark.parametrize("form", ["lerobot", "openpi"])
MODES = pytest.mark.parametrize("mode", ["quantile", "mean_std"])


@UNTIMED
@given(SEEDS)
def test_lerobots_formulas_are_met_to_the_bit(seed):
    torch = pytest.importorskip("torch")
    stats = moving_stats(seed)
    x = sample(stats, seed)
    mean, std, q01, q99 = (
        torch.tensor(part) for part in (stats.mean, stats.std, stats.q01, stats.q99)
    )
    value, width = torch.from_numpy(x), q99 - q01
    for mode, forth, back in (
        ("quantile", 2 * (value - q01) / width - 1, (value + 1) * width / 2 + q01),
        ("mean_std", (value - mean) / (std + 1e-8), value * std + mean),
    ):
        assert np.array_equal(normalize(x, stats, mode), forth.numpy())
        assert np.array_equal(unnormalize(x, stats, mode), back.numpy())


@UNTIMED
@given(SEEDS)
def test_openpis_formulas_are_met_to_the_bit(seed):
    stats = moving_stats(seed)
    x = sample(stats, seed)
    mean, std, q01, q99 = map(np.array, (stats.mean, stats.std, stats.q01, stats.q99))
    width = q99 - q01 + 1e-6
    for mode, forth, back in (
        ("quantile", (x - q01) / width * 2 - 1, (x + 1) / 2 * width + q01),
        ("mean_std", (x - mean) / (std + 1e-6), x * (std + 1e-6) + mean),
    ):
        assert np.array_equal(normalize(x, stats, mode, "openpi"), forth)
        back = back.astype(np.float32)
        assert np.array_equal(unnormalize(x, stats, mode, "openpi"), back)


@FORMS
@MODES
@UNTIMED
@given(seed=SEEDS)
def test_unnormalize_inverts_normalize_where_a_dimension_moves(form, mode, seed):
    stats = moving_stats(seed)
    x = sample(stats, seed)
    back = unnormalize(normalize(x, stats, mode, form), stats, mode, form)
    assert (np.abs(back - x) <= 1e-5 * (np.abs(x) + np.abs(stats.mean) + stats.std)).all()


@FORMS
@MODES
@UNTIMED
@given(
    constant=st.floats(-1e4, 1e4, width=32),
    part=st.floats(0, 0.9),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1),
)
def test_a_constant_dimension_stays_at_its_constant(form, mode, constant, part, values):
    width = part * 1e-6 * max(1, abs(constant))
    stats = NormStats(mean=(constant,), std=(width,), q01=(constant,), q99=(constant + width,))
    column = np.array(values)[:, None]
    assert (normalize(column, stats, mode, form) == (-1 if mode == "quantile" else 0)).all()
    assert (unnormalize(column, stats, mode, form) == np.float32(constant)).all()


@FORMS
@MODES
def test_a_narrow_dimension_that_moves_is_not_constant(form, mode):
    stats = NormStats(mean=(0.5,), std=(2e-6,), q01=(0.5 - 4e-6,), q99=(0.5 + 4e-6,))
    low, high = normalize(np.array([[0.5 - 4e-6], [0.5 + 4e-6]]), stats, mode, form)
    assert high - low > 1


def test_openpis_bins_are_cut_in_double_precision():
    stats = NormStats(q01=(-50.0,), q99=(50.0,))
    # The 1e-6 that openpi adds to the range puts 25 just below the edge at 0.5.
    assert state_bins(normalize(np.array([25.0]), stats, "quantile", "openpi")) == 191
    assert state_bins(normalize(np.array([25.0]), stats, "quantile", "lerobot")) == 192


def test_quantiles_map_to_the_ends_of_the_range():
    stats = NormStats(mean=(0,), std=(1,), q01=(2,), q99=(6,))
    value = normalize(np.array([[2.0], [4.0], [6.0]]), stats, "quantile")
    assert value.ravel().tolist() == [-1, 0, 1]
    assert value.dtype == np.float32


def test_an_unknown_normalisation_is_named():
    with pytest.raises(ConfigError, match=r"no normalisation 'quantiles'.*Did you mean 'quantile'"):
        normalize(np.zeros(1), stats_of(np.zeros((2, 1))), "quantiles")
    with pytest.raises(ConfigError, match=r"no normalisation form 'pi'.*lerobot, openpi"):
        normalize(np.zeros(1), stats_of(np.zeros((2, 1))), "quantile", "pi")


def test_statistics_of_another_vector_or_mode_are_refused():
    stats = NormStats(q01=(0.0, 0.0), q99=(1.0, 1.0))
    with pytest.raises(ConfigError, match="of 3 numbers needs as many q01 and q99, got 2 and 2"):
        normalize(np.zeros(3), stats, "quantile")
    with pytest.raises(ConfigError, match="of 2 numbers needs as many mean and std, got 0 and 0"):
        unnormalize(np.zeros(2), stats, "mean_std")


def manifest_of(bundle: Bundle, **changes) -> Manifest:
    return replace(bundle.manifest, **changes)


@pytest.fixture(scope="module")
def kitchen() -> Bundle:
    return load_bundle("kitchen-sft")


def prepare(bundle: Bundle, manifest: Manifest, instruction: str, **state) -> dict[str, np.ndarray]:
    """Return the model's inputs of a fixed observation."""
    contract = manifest.contract
    images = {
        camera: (np.arange(side * side * 3) * 7919 // 8 % 256)
        .astype(np.uint8)
        .reshape(side, side, 3)
        for camera, side in zip(contract.cameras, (96, 192, 384), strict=True)
    }
    fields = {f.name: np.linspace(-0.4, 0.4, f.size, dtype=np.float32) for f in contract.state}
    observation = Observation(
        images=images, state=fields | state, instruction=instruction, stamp_ns=0
    )
    tokenizer = PromptTokenizer(bundle.tokenizer, manifest.prompt.max_tokens)
    return Preprocessor(manifest, tokenizer)(observation)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (
            "Pick the bell_pepper from the\nsink. ",
            "9bfb76d46754e16894bab1759998e474df7f22ccc0ce83ac2bb591ffbda5ecd5",
        ),
        (
            "open the left drawer and then the right one " * 5,
            "1e5939bf5b784855f9a6539747e5c140bcf61ec3a2f4b4248a12fb91baf94219",
        ),
    ],
    ids=["short", "cut"],
)
def test_the_kitchens_inputs_never_change(kitchen, instruction, expected):
    inputs = prepare(kitchen, kitchen.manifest, instruction)
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(inputs[name].tobytes())
    assert digest.hexdigest() == expected


def test_both_signs_of_a_rotation_are_one_input(kitchen):
    """Drivers publish q or -q; the shipped policies failed at nearly every episode with -q."""
    turned = np.float32([0.96, 0.02, 0.27, 0.01])
    turned /= np.linalg.norm(turned)
    name = "end_effector_rotation_relative"
    one, two = (
        prepare(kitchen, kitchen.manifest, "open the drawer", **{name: sign * turned})["tokens"]
        for sign in (1, -1)
    )
    assert np.array_equal(one, two)


def test_demonstrations_with_both_signs_are_learned_with_one():
    fields = (Field(name="turn", dims=("x", "y", "z", "w"), unit="quaternion"),)
    turns = np.float32([[0.99, 0.1, 0, 0.1], [-0.99, 0.1, 0, -0.1], [0.98, -0.1, 0.1, 0.1]])
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    assert (one_hemisphere(turns, fields)[:, 0] > 0).all()
    both = np.zeros(4, np.float32)
    assert np.array_equal(one_hemisphere(turns, fields, both), turns), "nothing tells the sign"


def test_a_prompt_without_state_is_the_instruction_and_a_line_break(kitchen):
    manifest = manifest_of(kitchen, prompt=PromptSpec(max_tokens=48, discrete_state=False))
    inputs = prepare(kitchen, manifest, "open the drawer")
    other = prepare(kitchen, manifest, "open the drawer", gripper_qpos=np.zeros(2, np.float32))
    assert np.array_equal(inputs["tokens"], other["tokens"])
    assert inputs["token_mask"].sum() < 9


@pytest.mark.parametrize(
    ("mode", "form", "expected"),
    [
        ("mean_std", "lerobot", 198),  # 0.55
        ("mean_std", "openpi", 184),  # 0.44: openpi's ranges are 1e-6 wider
        ("quantile", "lerobot", 140),  # 0.1
        ("quantile", "openpi", 112),  # -0.12
    ],
)
def test_the_state_is_normalised_as_the_manifest_says(kitchen, mode, form, expected):
    size = kitchen.manifest.contract.state_size
    stats = NormStats(mean=(0,) * size, std=(4e-6,) * size, q01=(0,) * size, q99=(4e-6,) * size)
    action = kitchen.manifest.normalization.action
    scaling = Normalization(mode=mode, form=form, state=stats, action=action)
    manifest = manifest_of(kitchen, normalization=scaling)
    state = {f.name: np.full(f.size, 2.2e-6) for f in kitchen.manifest.contract.state}
    inputs = prepare(kitchen, manifest, "open the drawer", **state)
    tokens, _ = PromptTokenizer(kitchen.tokenizer, 48).encode("open the drawer", [expected] * size)
    assert np.array_equal(inputs["tokens"], tokens)


def test_slots_without_a_camera_are_black_and_masked(kitchen):
    contract = replace(kitchen.manifest.contract, cameras=kitchen.manifest.contract.cameras[:2])
    manifest = manifest_of(kitchen, contract=contract)
    observation = Observation(
        images={camera: np.full((96, 96, 3), 255, np.uint8) for camera in contract.cameras},
        state={},
        instruction="",
        stamp_ns=0,
    )
    preprocess = Preprocessor(manifest, PromptTokenizer(kitchen.tokenizer, 48))
    images, mask = preprocess.images(observation.images)
    assert mask.tolist() == [True, True, False]
    assert (images[:2] == 1).all() and (images[2] == -1).all()
    assert images.dtype == np.float32


def test_without_pillow_a_bundle_that_needs_it_says_so_before_the_first_image(kitchen, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    tokenizer = PromptTokenizer(kitchen.tokenizer, 48)
    Preprocessor(kitchen.manifest, tokenizer)
    image = replace(kitchen.manifest.image, resize="bilinear_antialias")
    with pytest.raises(BackendUnavailable, match="pip install pillow"):
        Preprocessor(manifest_of(kitchen, image=image), tokenizer)
