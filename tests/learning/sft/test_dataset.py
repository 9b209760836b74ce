"""Demonstrations in memory: labels, validity, balance and augmentation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.demonstrations import make_demos
from support.tiny_bundle import TINY, tiny_contract

from z1_ros.errors import ConfigError
from z1_ros.learning.sft import demos
from z1_ros.learning.sft.dataset import (
    Augmentation,
    Frames,
    columns,
    fit_normalization,
    guarded_stats,
    jitter_colours,
    load_frames,
    split_seeds,
    undisturbed,
)
from z1_ros.models.bundle.tokenizer import PAD_ID, PromptTokenizer, small_tokenizer
from z1_ros.policy.transforms import normalize, state_bins, unnormalize

TASKS = ("OpenDrawer", "TurnOnMicrowave")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "demos"
    for task, episodes in zip(TASKS, (12, 4), strict=True):
        make_demos(out, episodes, task, image_size=32, noisy=0.5)
    return out


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(small_tokenizer(), "utf-8")
    return PromptTokenizer(path, TINY.prompt_tokens)


@pytest.fixture(scope="module")
def loaded(directory, tokenizer):
    train, held = split_seeds(directory, TASKS, 0.25)
    normalization = fit_normalization(directory, train, tiny_contract())
    frames = load_frames(
        directory, train, tiny_contract(), normalization, tokenizer, TINY.action_dim
    )
    return frames, normalization, train, held


def test_held_out_episodes_are_others_than_those_trained_on(loaded):
    _, _, train, held = loaded
    assert [sum(e[0] == t for e in train) for t in TASKS] == [9, 3]
    assert [sum(e[0] == t for e in held) for t in TASKS] == [3, 1]
    assert not set(train) & set(held)


def test_a_chunk_is_what_the_expert_did_next_then_a_hold(directory, loaded, tokenizer):
    _, normalization, train, _ = loaded
    names = ("actions", "frame_steps", "disturbed")
    for episode in train:
        stored = demos.read_episode(directory, *episode[:2], names)
        if not stored["disturbed"].any():
            break
    frames = load_frames(
        directory, [episode], tiny_contract(), normalization, tokenizer, TINY.action_dim
    )
    assert len(frames) == len(stored["frame_steps"]) and frames.valid.all()
    hold = np.zeros((TINY.horizon, 7))
    hold[:, 6] = stored["actions"][-1, 6]
    future = np.concatenate([stored["actions"], hold])
    for row, start in enumerate(stored["frame_steps"]):
        chunk = unnormalize(frames.chunks[row, :, :7].numpy(), normalization.action, "quantile")
        np.testing.assert_allclose(chunk, future[start : start + TINY.horizon], atol=1e-5)
    assert (frames.chunks[..., 7:] == 0).all()


def test_state_and_actions_are_taken_by_name_in_the_contracts_order(directory, loaded, tokenizer):
    frames, _, train, _ = loaded
    contract = tiny_contract()
    turned = replace(contract, action=contract.action[::-1], state=contract.state[::-1])
    scaling = fit_normalization(directory, train, turned)
    again = load_frames(directory, train, turned, scaling, tokenizer, 32)
    assert again.chunks.shape[-1] == 32 and not again.chunks[..., 7:].any()
    order = [contract.action_dims.index(name) for name in turned.action_dims]
    assert order != sorted(order)
    assert torch.equal(again.chunks[..., :7], frames.chunks[..., order])
    names = ("state", "disturbed", "frame_steps")
    stored = demos.read_episode(directory, *train[0][:2], names)
    valid = undisturbed(stored["disturbed"], stored["frame_steps"], contract.horizon)
    first = int((valid.sum(1) >= 4).argmax())
    state_at = columns(demos.read_header(directory)["state"], turned.state)
    bins = state_bins(normalize(stored["state"][first, state_at], scaling.state, "quantile"))
    assert torch.equal(
        again.tokens[0].long(), torch.from_numpy(tokenizer.encode(train[0][2], bins)[0])
    )
    assert not torch.equal(again.tokens[0], frames.tokens[0])


def test_a_prompt_without_state_holds_the_instruction_alone(directory, loaded, tokenizer):
    _, normalization, train, _ = loaded
    shared = (directory, train, tiny_contract(), normalization, tokenizer, TINY.action_dim)
    frames = load_frames(*shared, discrete_state=False)
    expected = tokenizer.encode(train[0][2], None)[0]
    assert (frames.tokens[0].numpy() == expected).all()
    assert len(frames.tokens.unique(dim=0)) == len({instruction for _, _, instruction in train})


def test_each_vector_is_scaled_by_its_own_mode_and_the_right_form(directory, loaded, tokenizer):
    frames, normalization, train, _ = loaded
    z_score = replace(normalization, action_mode="mean_std", form="openpi")
    shared = (tokenizer, TINY.action_dim)
    other = load_frames(directory, train, tiny_contract(), z_score, *shared)
    raw = unnormalize(frames.chunks[..., :7].numpy(), normalization.action, "quantile")
    expected = normalize(raw, normalization.action, "mean_std", "openpi")
    np.testing.assert_allclose(other.chunks[..., :7].numpy(), expected, atol=2e-4)
    assert torch.equal(other.tokens, frames.tokens)


def test_actions_that_the_network_is_too_narrow_for_are_refused(directory, loaded, tokenizer):
    _, normalization, train, _ = loaded
    with pytest.raises(ConfigError, match="actions of 7 dimensions, the network gives 6"):
        load_frames(directory, train, tiny_contract(), normalization, tokenizer, 6)


def test_labels_after_a_disturbance_do_not_count():
    disturbed = np.zeros(10, bool)
    disturbed[[3, 4]] = True
    valid = undisturbed(disturbed, np.array([0, 2, 3, 4, 5, 9]), 4)
    # The action at the disturbed step itself still answers the state that was seen.
    assert valid.sum(1).tolist() == [4, 2, 1, 1, 4, 4]
    assert all(row.tolist() == sorted(row.tolist(), reverse=True) for row in valid)


def test_tasks_are_drawn_equally_often_whatever_their_size(loaded):
    frames = loaded[0]
    assert frames.counts.tolist()[0] > 2 * frames.counts.tolist()[1]
    index = frames.draw(20_000, torch.Generator().manual_seed(0))
    share = (index >= frames.starts[1]).float().mean()
    assert abs(share - 0.5) < 0.02
    assert index.min() == 0 and index.max() == len(frames) - 1


def test_batches_repeat_with_their_generator(loaded):
    frames = loaded[0]

    def batch(seed):
        random = torch.Generator().manual_seed(seed)
        return frames.inputs(frames.draw(8, random), Augmentation(), random)

    one, two = batch(5), batch(5)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["images"], batch(6)["images"])


def test_inputs_without_augmentation_are_the_stored_images(loaded):
    frames = loaded[0]
    index = torch.tensor([3, 0])
    inputs = frames.inputs(index, None, torch.Generator())
    expected = frames.images[index].permute(0, 1, 4, 2, 3) / 127.5 - 1
    torch.testing.assert_close(inputs["images"], expected, atol=1e-6, rtol=0)
    assert torch.equal(inputs["token_mask"], inputs["tokens"] != PAD_ID)
    still = Augmentation(shift_px=0, brightness=0, contrast=0, colour=0)
    same = frames.inputs(index, still, torch.Generator())
    torch.testing.assert_close(same["images"], inputs["images"], atol=1e-6, rtol=0)


def test_shifts_move_whole_images_by_at_most_the_limit(loaded):
    frames = loaded[0]
    size = frames.images.shape[2]
    ramp = torch.arange(size, dtype=torch.uint8)
    images = torch.zeros(1, 3, size, size, 3, dtype=torch.uint8)
    images[..., 0], images[..., 1] = ramp[:, None], ramp[None, :]
    marked = Frames(
        images=images,
        tokens=frames.tokens,
        chunks=frames.chunks,
        valid=frames.valid,
        starts=frames.starts,
        counts=frames.counts,
    )
    index = torch.zeros(50, dtype=torch.long)
    moved = marked._pixels(index, 3, torch.Generator().manual_seed(0)).int()
    inner = moved[:, :, 8:-8, 8:-8]
    for channel in (0, 1):
        offset = inner[..., channel] - images[:, :, 8:-8, 8:-8, channel].int()
        assert offset.abs().max() == 3
        assert offset.flatten(2).float().std(-1).max() == 0


def test_colour_changes_stay_in_range_and_differ_per_image():
    images = torch.rand(16, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = jitter_colours(images, Augmentation(), torch.Generator().manual_seed(1))
    assert changed.min() >= 0 and changed.max() <= 1
    shift = (changed - images).mean((2, 3, 4))
    assert shift.std() > 0.02


def test_a_dimension_that_seldom_moves_is_not_blown_up():
    values = np.zeros((1000, 2), np.float32)
    values[:, 0] = np.linspace(-1, 1, 1000)
    values[:5, 1] = 1.0
    stats = guarded_stats(values)
    normalized = normalize(values, stats, "quantile")
    assert np.abs(normalized[:, 1]).max() <= 1 and np.ptp(normalized[:, 1]) == 2
    assert np.abs(normalized[:, 0]).max() < 1.1


def test_too_few_demonstrations_are_named(directory):
    with pytest.raises(ConfigError, match="0 successful episodes of TurnOnSinkFaucet"):
        split_seeds(directory, ["TurnOnSinkFaucet"], 0.1)
