"""The parity command: right weights agree with other implementations, wrong ones are caught."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.micro import DATA, HEAD, MICRO, OPENPI, PALIGEMMA, as_lerobot, openpi_weights, saved

from z1_ros.command import run_command
from z1_ros.models.checkpoint.loading import load_checkpoint, write_tensors
from z1_ros.models.parity.golden import read_golden
from z1_ros.models.parity.report import ParityConfig, forward_values, main, run

GOLDEN = DATA / "golden.safetensors"
GOLDEN_OPENPI = DATA / "golden_openpi.safetensors"
GOLDEN_BFLOAT16 = DATA.parent / "pi05_micro_bfloat16" / "golden.safetensors"


def parity(golden=GOLDEN, checkpoint=OPENPI, **settings):
    return run(ParityConfig(golden=golden, checkpoint=checkpoint, **settings))


def failed(report):
    return [row["key"] for row in report["rows"] if not row["ok"]]


def metadata(path=GOLDEN):
    with safe_open(path, "pt") as stream:
        return stream.metadata()


def changed_golden(tmp_path, note=None, **tensors):
    """Write the golden data with some tensors replaced, None removing one."""
    changed = {key: t for key, t in (load_file(GOLDEN) | tensors).items() if t is not None}
    return saved(changed, tmp_path / "golden.safetensors", **(note or metadata()))


def test_every_key_of_lerobots_golden_is_within_tolerance():
    report = parity()
    assert failed(report) == [] and report["not_compared"] == []
    rows = {row["key"]: row for row in report["rows"]}
    compared = {key for key in load_file(GOLDEN) if not key.startswith("in.")}
    without = json.loads(metadata()["no_grad_params"])
    assert rows.keys() == compared | {f"grad.{name}" for name in without}
    assert len(rows) == 45 + 8
    assert rows["out.loss"]["tolerance"] == rows["mid.kv1.k"]["tolerance"] == 5e-6
    assert rows["grad.time_mlp_in.bias"]["tolerance"] == 2e-5
    assert 0 < rows["out.sample_actions"]["error"] < 1e-6


def test_openpis_golden_is_met_with_the_inputs_of_another(tmp_path):
    path = saved(as_lerobot(openpi_weights()), tmp_path / "model.safetensors")
    report = parity(GOLDEN_OPENPI, path, inputs=GOLDEN)
    assert failed(report) == [] and report["layout"] == "lerobot"
    assert len(report["rows"]) == 43
    # Its own times, summed in float32, are not ours; over them the actions agree.
    rows = {row["key"]: row["error"] for row in report["rows"]}
    assert 0 < rows["mid.step_time"] < 1e-6 and rows["out.sample_actions"] < 1e-6


def test_bfloat16_is_told_by_the_golden_and_within_its_tolerances():
    report = parity(GOLDEN_BFLOAT16)
    assert report["dtype"] == "bfloat16" and failed(report) == []
    rows = {row["key"]: row for row in report["rows"]}
    assert rows["out.loss"]["tolerance"] == 1e-2 and rows["mid.step_v"]["tolerance"] == 2e-2
    assert rows["grad.time_mlp_in.bias"]["tolerance"] == 5e-2
    assert rows["out.sample_actions"]["error"] > 1e-4
    assert "out.sample_actions" in failed(parity(GOLDEN_BFLOAT16, dtype="float32"))


def test_a_bundle_is_compared_like_a_checkpoint(tmp_path):
    write_tensors(tmp_path / "model.safetensors", load_checkpoint(OPENPI, MICRO).state_dict())
    report = parity(checkpoint=tmp_path)
    assert report["layout"] == "z1_ros" and failed(report) == []


@pytest.mark.parametrize(
    ("key", "caught"),
    [
        (HEAD, "mid.prefix_embs"),
        ("action_in_proj.bias", "mid.suffix_embs"),
        ("time_mlp_out.bias", "mid.adarms_cond"),
        (PALIGEMMA + "model.language_model.layers.0.mlp.up_proj.weight", "mid.kv1.k"),
        (PALIGEMMA + "model.language_model.layers.1.self_attn.v_proj.weight", "mid.kv1.v"),
        ("action_out_proj.bias", "mid.step_v"),
    ],
)
def test_a_weight_that_is_a_little_off_is_caught_where_it_shows_first(key, caught, tmp_path):
    weights = openpi_weights()
    weights[key] = weights[key] * 1.001
    report = parity(checkpoint=saved(weights, tmp_path / "a.safetensors"))
    keys = failed(report)
    assert caught in keys and "out.loss" in keys
    order = ["mid.prefix_embs", "mid.suffix_embs", "mid.adarms_cond", "mid.kv0.k", "mid.kv0.v"]
    order += ["mid.kv1.k", "mid.kv1.v", "mid.step_v"]
    assert not set(order[: order.index(caught)]) & set(keys)


def test_weights_that_were_rounded_before_are_named_as_a_reason(tmp_path, capsys):
    rounded = {key: t.bfloat16() for key, t in openpi_weights().items()}
    path = saved(rounded, tmp_path / "model.safetensors")
    assert run_command("parity", main, ParityConfig, [str(GOLDEN), str(path)]) == 1
    assert "weights are rounded to bfloat16" in capsys.readouterr().out


def test_wrong_heads_of_the_vision_tower_are_caught():
    assert "mid.prefix_embs" in failed(parity(vision_heads=8))


def test_what_padding_holds_is_not_compared(tmp_path):
    tensors = load_file(GOLDEN)
    noise = torch.where(tensors["mid.prefix_pad"][:, None, :, None], 0.0, torch.nan)
    off = {key: tensors[key] + noise for key in tensors if key.startswith("mid.kv")}
    assert failed(parity(changed_golden(tmp_path, **off))) == []


def test_a_padding_mask_must_be_equal(tmp_path):
    pad = load_file(GOLDEN)["mid.prefix_pad"].clone()
    pad[0, 0] = ~pad[0, 0]
    path = changed_golden(tmp_path, **{"mid.prefix_pad": pad, "mid.prefix_att": pad})
    assert failed(parity(path)) == ["mid.prefix_att", "mid.prefix_pad"]


def test_nothing_that_is_not_a_number_passes(tmp_path):
    weights = openpi_weights()
    weights["action_out_proj.bias"][0] = torch.nan
    report = parity(checkpoint=saved(weights, tmp_path / "a.safetensors"))
    assert {"out.sample_actions", "out.loss", "mid.step_v"} <= set(failed(report))


def test_gradients_of_unknown_weights_fail_and_unknown_intermediates_are_listed(tmp_path):
    odd = {"grad.state_proj.weight": torch.ones(3), "mid.entropy": torch.ones(2)}
    report = parity(changed_golden(tmp_path, **odd))
    assert failed(report) == ["grad.state_proj.weight"]
    assert report["not_compared"] == ["mid.entropy"]


def test_a_gradient_is_zero_where_the_golden_has_none_or_zero(tmp_path):
    last = PALIGEMMA + "model.language_model.layers.1.self_attn.q_proj.weight"
    assert not load_file(GOLDEN)[f"grad.{last}"].any()
    path = changed_golden(tmp_path, **{f"grad.{last}": torch.ones(128, 64)})
    assert failed(parity(path)) == [f"grad.{last}"]
    note = {**metadata(), "no_grad_params": json.dumps(["time_mlp_in.bias"])}
    path = changed_golden(tmp_path, note, **{"grad.time_mlp_in.bias": None})
    assert failed(parity(path)) == ["grad.time_mlp_in.bias"]


def test_a_tied_text_head_has_the_gradient_of_the_embedding(tmp_path):
    report = parity(changed_golden(tmp_path, **{f"grad.{HEAD}": torch.ones(512, 64)}))
    row = next(row for row in report["rows"] if row["key"] == f"grad.{HEAD}")
    assert not row["ok"] and 0 < row["error"] < 10


def test_a_bias_of_keys_is_judged_by_the_largest_gradient(tmp_path):
    """Softmax ignores it, so that its gradient is nothing but rounding."""
    key = "model.vision_tower.vision_model.encoder.layers.0.self_attn.k_proj.bias"
    golden = {f"grad.{PALIGEMMA}{key}": torch.full((48,), 1e-9)}
    assert failed(parity(changed_golden(tmp_path, **golden))) == []
    golden = {f"grad.{PALIGEMMA}{key}": torch.full((48,), 1e-3)}
    assert failed(parity(changed_golden(tmp_path, **golden))) == [f"grad.{PALIGEMMA}{key}"]


@pytest.mark.parametrize("rope", ["float32", "bfloat16"])
def test_the_precision_of_rotary_frequencies_is_found_and_told(rope, tmp_path, capsys):
    """At long prompts bfloat16 frequencies are another network, which two peers are."""
    tensors = {key: t for key, t in load_file(GOLDEN).items() if key.startswith("in.")}
    random = torch.Generator().manual_seed(0)
    tensors["in.tokens"] = torch.randint(3, 500, (2, 900), generator=random)
    tensors["in.masks"] = torch.ones(2, 900, dtype=torch.bool)
    note = {**metadata(), "precision": "bfloat16", "no_grad_params": "[]"}
    path = saved(tensors, tmp_path / "long.safetensors", **note)
    network = load_checkpoint(OPENPI, MICRO, torch.bfloat16)
    network.rope_dtype = getattr(torch, rope)
    with torch.no_grad():
        made = {key: t.float() for key, t in forward_values(network, read_golden(path))}
    made = {key: t for key, t in made.items() if ".prefix" not in key}
    path = saved({**tensors, **made}, tmp_path / "golden.safetensors", **note)
    report = parity(path)
    assert report["rope"] == rope and failed(report) == []
    assert min(report["rope_worst"].values()) < 1 < max(report["rope_worst"].values())
    assert main(ParityConfig(golden=path, checkpoint=OPENPI)) == 0
    assert f"Rotary frequencies in {rope}" in capsys.readouterr().out


def test_the_command_prints_a_table_and_ends_with_a_code(tmp_path, capsys):
    report_file = tmp_path / "report_file.json"
    args = [str(GOLDEN), str(OPENPI)]
    assert run_command("parity", main, ParityConfig, [*args, "--json", str(report_file)]) == 0
    printed = capsys.readouterr().out
    assert "all 53 keys are within tolerance" in printed
    assert all(row["key"] in printed for row in json.loads(report_file.read_text())["rows"])
    weights = openpi_weights()
    weights["action_out_proj.bias"] = torch.full((32,), torch.inf)
    off = str(saved(weights, tmp_path / "off.safetensors"))
    args = [str(GOLDEN), off, "--json", str(report_file)]
    assert run_command("parity", main, ParityConfig, args) == 1
    assert "keys are above tolerance" in capsys.readouterr().out

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(report_file.read_text(), parse_constant=no_constant)["failed"] > 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere.safetensors", OPENPI], "no checkpoint at nowhere.safetensors"),
        ([GOLDEN, "nowhere"], "no checkpoint at nowhere"),
        ([GOLDEN_OPENPI, OPENPI], "lacks in.tokens"),
        ([OPENPI, GOLDEN], "holds no golden data (in.*, mid.*, out.*, grad.*); the golden file is"),
        ([GOLDEN, GOLDEN], "golden data"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(args, words, capsys):
    assert run_command("parity", main, ParityConfig, [str(a) for a in args]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"in.tokens": torch.full((2, 48), 512)}, "tokens beyond the vocabulary 512"),
        ({"in.masks": torch.ones(2, 40)}, "in.masks has shape (2, 40)"),
        ({"in.image1": torch.ones(2, 3, 56, 70)}, "in.image1 has shape"),
        ({"in.noise": torch.ones(2, 10)}, "in.noise has 2 dimensions"),
        ({"in.image0": torch.ones(2, 3, 70, 70)}, "in.image1 has shape (2, 3, 56, 56)"),
        ({"mid.step_x": torch.ones(9, 2, 10, 32)}, "mid.step_x has shape"),
    ],
)
def test_golden_inputs_that_do_not_fit_each_other_are_named(tensors, words, tmp_path, capsys):
    path = changed_golden(tmp_path, **tensors)
    assert run_command("parity", main, ParityConfig, [str(path), str(OPENPI)]) == 2
    assert words in capsys.readouterr().err


def test_golden_data_without_results_are_refused(tmp_path, capsys):
    inputs = {key: t for key, t in load_file(GOLDEN).items() if key.startswith("in.")}
    note = {"geom": metadata()["geom"]}
    path = saved(inputs, tmp_path / "golden.safetensors", **note)
    assert run_command("parity", main, ParityConfig, [str(path), str(OPENPI)]) == 2
    assert "holds nothing to compare with" in capsys.readouterr().err


def test_golden_data_of_other_sizes_name_the_weights_that_differ(tmp_path, capsys):
    geom = json.loads(metadata()["geom"])
    geom["vlm"]["width"], geom["vis"]["num_hidden_layers"] = 80, 3
    path = changed_golden(tmp_path, {**metadata(), "geom": json.dumps(geom)})
    assert run_command("parity", main, ParityConfig, [str(path), str(OPENPI)]) == 2
    error = capsys.readouterr().err
    assert "16 missing" in error and "vision_tower.vision_model.encoder.layers.2" in error
    assert "(64,) instead of (80,)" in error


def test_without_metadata_the_vision_heads_must_be_given(tmp_path, capsys):
    path = changed_golden(tmp_path, {"peer": "unknown"})
    assert run_command("parity", main, ParityConfig, [str(path), str(OPENPI)]) == 2
    assert "does not tell vision_heads" in capsys.readouterr().err
    assert failed(parity(path, vision_heads=4)) == []


def test_it_runs_as_a_module():
    args = [sys.executable, "-m", "z1_ros.models.parity", str(GOLDEN), str(DATA / "nothing")]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "no checkpoint at" in done.stderr
