"""Combining policies of several tasks: the same numbers as before, or a refusal in one sentence."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from z1_ros.benchmarks.load import random_observation
from z1_ros.commands.combine import CombineConfig, main
from z1_ros.errors import BundleError, CheckpointError, ConfigError
from z1_ros.files import write_text
from z1_ros.models.bundle.card import CARD
from z1_ros.models.bundle.combine import combine
from z1_ros.models.bundle.export import export
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle, write_manifest
from z1_ros.models.bundle.networks import load_bundle_network
from z1_ros.models.bundle.task_experts import is_expert_tensor, weights_file
from z1_ros.models.bundle.writer import write_result
from z1_ros.models.checkpoint.loading import read_tensors, write_tensors
from z1_ros.policy.backends import load_policy
from z1_ros.sim.kitchen.tasks import TASKS

SAID = {"OpenDrawer": "open the left drawer", "TurnOnSinkFaucet": "turn on the sink faucet"}
PATTERNS = {task: TASKS[task].instruction_patterns for task in SAID}
NOBODYS = "close the microwave"


def made_by(base, task, seed):
    return {
        "command": f"z1-train --task {task}",
        "init": {"name": base.manifest.name, "sha256": base.sha256},
        "z1": {
            "task": task,
            "seed": seed,
            "iteration": 7,
            "elapsed_s": 60.0,
            "best_iteration": 5,
            "best_success": 0.75,
            "eval": [10, 100],
        },
        "versions": {"torch": "2.13.0"},
    }


def write_trained(base, out, task, seed=1, part=is_expert_tensor):
    """Write what z1-train would: the base with other values in some of its tensors."""
    random = torch.Generator().manual_seed(seed)
    weights = {
        name: t + 0.05 * torch.randn(t.shape, generator=random) if part(name) else t
        for name, t in read_tensors(base.file(WEIGHTS)).items()
    }
    return write_result(base, weights, out, made_by(base, task, seed))


@pytest.fixture(scope="module")
def parts(tmp_path_factory, exported_tiny):
    """A base and two results, all exported."""
    folder = tmp_path_factory.mktemp("combine")
    base = load_bundle(shutil.copytree(exported_tiny[0].path, folder / "base"))
    trained = [write_trained(base, folder / task, task, i) for i, task in enumerate(SAID, 1)]
    for bundle in trained:  # of equal weights the graph is equal too
        shutil.copy(base.path / "prefix.onnx", bundle.path)
        export(write_manifest(bundle.path, bundle.manifest), ["denoise"])
    return load_bundle(base.path), {t: load_bundle(folder / t) for t in SAID}


@pytest.fixture(scope="module")
def combined(parts, tmp_path_factory):
    base, results = parts
    out = tmp_path_factory.mktemp("combined") / "all"
    paths = tuple(str(result.path) for result in results.values())
    return main(CombineConfig(base=str(base.path), experts=paths, out=out))


def said(bundle, instruction, stamp_ns=0):
    return replace(random_observation(bundle.manifest), instruction=instruction, stamp_ns=stamp_ns)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_each_task_gets_the_numbers_of_its_own_bundle_to_the_bit(parts, combined, backend):
    base, results = parts
    policy = load_policy(combined.path, backend=backend, threads=1)
    chunks = []
    for instruction, single in [
        *((SAID[task], result) for task, result in results.items()),
        (NOBODYS, base),
    ]:
        alone = load_policy(single.path, backend=backend, threads=1)
        for each in (policy, alone):
            each.reset(3)
        seen = said(base, instruction, stamp_ns=8)
        chunks.append(policy.infer(seen).actions)
        assert np.array_equal(chunks[-1], alone.infer(seen).actions), instruction
    # The same instruction to another expert would have given something else.
    other = load_policy(base.path, backend=backend, threads=1)
    other.reset(3)
    unlike = other.infer(said(base, SAID["OpenDrawer"], stamp_ns=8)).actions
    assert not np.allclose(unlike, chunks[0], atol=1e-3)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_batch_of_mixed_instructions_keeps_its_order(combined, backend):
    policy = load_policy(combined.path, backend=backend, threads=1)
    order = [SAID["OpenDrawer"], NOBODYS, SAID["TurnOnSinkFaucet"], NOBODYS, SAID["OpenDrawer"]]
    seen = [said(combined, text, stamp_ns=i) for i, text in enumerate(order)]
    batch = policy.infer_batch(seen, [11, 12, 13, 14, 15])
    assert [chunk.stamp_ns for chunk in batch] == [0, 1, 2, 3, 4]
    for observation, seed, chunk in zip(seen, [11, 12, 13, 14, 15], batch, strict=True):
        policy.reset(seed)
        np.testing.assert_allclose(policy.infer(observation).actions, chunk.actions, atol=1e-5)


def test_the_bundle_holds_the_vlm_once_and_tells_how_each_expert_was_made(parts, combined):
    base, results = parts
    manifest = combined.manifest
    assert set(manifest.experts) == set(SAID)
    assert set(manifest.graphs) == {p.stem for p in combined.path.glob("*.onnx")}
    assert manifest.files[WEIGHTS] == base.manifest.files[WEIGHTS]
    for task, result in results.items():
        assert manifest.experts[task].instructions == TASKS[task].instruction_patterns
        tensors = read_tensors(combined.file(weights_file(task)))
        assert tensors and all(map(is_expert_tensor, tensors))
        own = read_tensors(result.file(WEIGHTS))
        assert all(torch.equal(t, own[name]) for name, t in tensors.items())
        card = (combined.path / CARD).read_text("utf-8")
        for fact in (f"### {task}", result.sha256, f"z1-train --task {task}", "7 iterations"):
            assert fact in card
    assert f"sha256 `{base.sha256}`" in card and "`open the * drawer`" in card
    assert [path.name for path in combined.path.parent.iterdir()] == ["all"]


def test_the_network_of_an_expert_is_the_one_that_was_trained(parts, combined):
    _, results = parts
    for task, result in results.items():
        network = load_bundle_network(combined, task).state_dict()
        own = load_bundle_network(result).state_dict()
        assert network.keys() == own.keys()
        assert all(torch.equal(network[name], own[name]) for name in own)
    with pytest.raises(BundleError, match=r"no expert 'OpenDraw'.*Did you mean 'OpenDrawer'"):
        load_bundle_network(combined, "OpenDraw")


def test_training_an_expert_further_leaves_a_plain_bundle_that_takes_its_place(
    parts, combined, tmp_path
):
    further = write_trained(combined, tmp_path / "further", "OpenDrawer", seed=9)
    assert further.manifest.experts == {}
    again = combine(combined, {"OpenDrawer": further}, PATTERNS, tmp_path / "again", export=False)
    assert set(again.manifest.experts) == set(SAID)
    kept = weights_file("TurnOnSinkFaucet")
    assert again.manifest.files[kept] == combined.manifest.files[kept]
    changed = weights_file("OpenDrawer")
    assert again.manifest.files[changed] != combined.manifest.files[changed]
    assert "denoise_OpenDrawer.onnx" not in again.manifest.files, "the old expert's graph is gone"
    chunk = load_policy(again.path, threads=1).infer(said(again, SAID["OpenDrawer"]))
    alone = load_policy(further.path, threads=1).infer(said(again, SAID["OpenDrawer"]))
    assert np.array_equal(chunk.actions, alone.actions)


def test_missing_graphs_are_exported_and_equal_those_of_the_single_bundle(parts, tmp_path):
    base, results = parts
    single = results["OpenDrawer"]
    bare = tmp_path / "bare"
    shutil.copytree(single.path, bare, ignore=shutil.ignore_patterns("*.onnx"))
    bare = write_manifest(bare, single.manifest)
    made = combine(base, {"OpenDrawer": bare}, PATTERNS, tmp_path / "out")
    one, two = (
        onnx.load(path)
        for path in (made.file("denoise_OpenDrawer.onnx"), single.file("denoise.onnx"))
    )
    assert one.graph == two.graph


def refused(parts, result, error=BundleError, base=None):
    given, results = parts
    base, out = base or given, given.path.parent / "never"
    others = (str(results["TurnOnSinkFaucet"].path), str(result.path))
    with pytest.raises(error) as caught:
        main(CombineConfig(base=str(base.path), experts=others, out=out))
    assert not out.exists() and not list(out.parent.glob(".*"))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"denoise_steps": 5}, "they differ in denoise_steps (5 and 3)"),
        ({"replan_steps": 2}, "they differ in replan_steps (2 and 4)"),
        ({"embodiment": "panda_omron"}, "they differ in embodiment ('panda_omron' and 'panda')"),
    ],
)
def test_a_policy_that_acts_otherwise_is_refused(parts, tmp_path, changes, words):
    base, _ = parts
    made = write_trained(base, tmp_path / "x", "OpenDrawer")
    made = write_manifest(made.path, replace(made.manifest, **changes))
    assert words in refused(parts, made)


def test_other_normalisation_fields_and_tokenizers_are_refused(parts, tmp_path):
    base, _ = parts
    made = write_trained(base, tmp_path / "x", "OpenDrawer")
    scaling = made.manifest.normalization
    scaling = replace(scaling, state=replace(scaling.state, q99=(2.0,) * 5))
    write_manifest(made.path, replace(made.manifest, normalization=scaling))
    assert "normalization.state.q99[0] (2.0 and 1.0)" in refused(parts, made)
    write_text(made.tokenizer, made.tokenizer.read_text("utf-8") + " ")
    write_manifest(made.path, made.manifest)
    assert "its tokenizer differs" in refused(parts, made)


def test_a_jointly_trained_policy_is_refused_by_its_weights(parts, tmp_path):
    base, _ = parts
    made = write_trained(base, tmp_path / "x", "OpenDrawer", part=lambda name: True)
    text = refused(parts, made)
    assert "a weight of the VLM, is not the base's; it was trained jointly" in text


def test_weights_of_another_type_or_name_are_refused(parts, tmp_path):
    base, _ = parts
    made = write_trained(base, tmp_path / "x", "OpenDrawer")
    weights = read_tensors(made.file(WEIGHTS))
    write_tensors(made.path / WEIGHTS, {n: t.bfloat16() for n, t in weights.items()})
    write_manifest(made.path, made.manifest)
    assert "is torch.bfloat16" in refused(parts, made)
    write_tensors(made.path / WEIGHTS, {f"x.{n}": t for n, t in weights.items()})
    write_manifest(made.path, made.manifest)
    assert "its tensors have other names" in refused(parts, made)


def test_what_z1_train_did_not_make_and_two_of_one_task_are_refused(parts, combined):
    base, results = parts
    assert "is no result of z1-train or z1-teach for one task" in refused(parts, base)
    assert "is no result of z1-train or z1-teach for one task" in refused(parts, combined)
    assert "are both of task TurnOnSinkFaucet" in refused(
        parts, results["TurnOnSinkFaucet"], ConfigError
    )


def test_nothing_to_combine_and_a_malformed_origin_are_one_sentence(parts, tmp_path):
    base, _ = parts
    with pytest.raises(ConfigError, match="at least one bundle"):
        CombineConfig(base="x", experts=(), out=tmp_path)
    for origin in (None, [], {"task": ["OpenDrawer"]}, {"task": "OpenDoor"}):
        made = write_manifest(
            write_trained(base, tmp_path / "x", "OpenDrawer").path,
            replace(base.manifest, made_by={"z1": origin}),
        )
        assert "is no result of z1-train or z1-teach for one task" in refused(parts, made)


def test_prefixes_exported_by_different_versions_are_refused(parts, tmp_path):
    _, results = parts
    other = tmp_path / "other"
    shutil.copytree(results["OpenDrawer"].path, other)
    model = onnx.load(other / "prefix.onnx")
    model.producer_version = "another"
    onnx.save(model, other / "prefix.onnx")
    other = write_manifest(other, results["OpenDrawer"].manifest)
    assert "different prefix.onnx of the same weights" in refused(parts, other)


def test_a_foreign_experts_tensors_and_graph_are_one_sentence(combined, tmp_path):
    path = tmp_path / "foreign"
    shutil.copytree(combined.path, path)
    file = path / weights_file("OpenDrawer")
    tensors = read_tensors(file)
    write_tensors(file, {n: t[:1] if "action_in" in n else t for n, t in tensors.items()})
    write_manifest(path, combined.manifest)
    with pytest.raises(CheckpointError, match=r"expert_OpenDrawer.* does not fit the network"):
        load_policy(path, backend="torch")
    shutil.copyfile(path / "prefix.onnx", path / "denoise_OpenDrawer.onnx")
    write_manifest(path, combined.manifest)
    with pytest.raises(
        BundleError,
        match=r"denoise_OpenDrawer\.onnx has the inputs images, ",
    ):
        load_policy(path, backend="onnxruntime")


def test_an_existing_bundle_stays_whole_when_combining_fails(parts, tmp_path, monkeypatch):
    base, results = parts
    out = tmp_path / "out"
    first = combine(base, {"OpenDrawer": results["OpenDrawer"]}, PATTERNS, out)

    def fail(*_):
        raise BundleError("the disk is full")

    monkeypatch.setattr("z1_ros.models.bundle.writer.write_manifest", fail)
    with pytest.raises(BundleError, match="disk is full"):
        combine(base, results, PATTERNS, out)
    assert load_bundle(out).sha256 == first.sha256
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
