"""Search: trials leave no trace, what is found is better and is what is learnt, exact resume."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reach_env import PX, ReachEnv
from test_collect import InlineLane
from tiny_bundle import TINY, write_tiny_bundle

from z1_ros.errors import CheckpointError, ConfigError, Diverged, TrainingError
from z1_ros.models.checkpoint import load_network
from z1_ros.models.manifest import WEIGHTS, load_bundle
from z1_ros.rl.actor import Actor
from z1_ros.rl.critic import Critic, Outcomes, fit_critic, joined
from z1_ros.rl.lanes import LanePool, local_lanes
from z1_ros.rl.replay import Replay
from z1_ros.rl.search import Searcher, SearchJob, outcomes_of
from z1_ros.rl.search_config import SearchConfig, SearchRunConfig
from z1_ros.rl.search_train import SearchTraining, main
from z1_ros.rl.train import evaluate, train
from z1_ros.rl.worker import Begin, EnvWorker, Request
from z1_ros.specs import PANDA, PANDA_OMRON

SEARCH = SearchConfig(
    critic_steps=40, warmup_episodes=8, episodes=6, steps=3, batch_size=8, window=2, sigma=0.4
)
DIMS = PANDA.action_dim


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


class Nearer:
    """A critic that knows: the nearer the square the better."""

    def values(self, truth, doubt):
        return -np.abs(truth[:, 2:4]).max(1)


def searcher(bundle, pool, config=SEARCH, seed=0):
    network = load_network(bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)
    return Searcher(pool, Actor(network, bundle, PANDA, seed), PANDA, config, seed)


def inline(count=4):
    return LanePool([InlineLane() for _ in range(count)])


def jobs(acting, count=6):
    return [SearchJob((1, i), 50 + i, acting) for i in range(count)]


def told(episodes):
    return [(e.success, e.length, e.steps, [t.tobytes() for t in e.truths]) for e in episodes]


# -- trials


def test_a_trial_tells_what_would_come_of_it_and_leaves_no_trace():
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (3, 4, DIMS)).astype(np.float32)
    worker, plain = EnvWorker(ReachEnv), EnvWorker(ReachEnv)
    for one in (worker, plain):
        one.handle(Request(begin=Begin(seed=3), actions=actions[0]))
    tried = worker.handle(Request(trials=actions)).trials
    assert tried.truth.shape == (3, 5) and tried.truth.dtype == np.float32
    for i, sequence in enumerate(actions):
        one = EnvWorker(ReachEnv)
        one.handle(Request(begin=Begin(seed=3), actions=actions[0]))
        reply = one.handle(Request(actions=sequence, truth=True))
        assert np.array_equal(reply.truth, tried.truth[i])
        assert tried.steps[i] == reply.step.consumed
    one, two = (w.handle(Request(actions=actions[1], truth=True)) for w in (worker, plain))
    assert np.array_equal(one.truth, two.truth)


def test_a_trial_is_guarded_as_its_execution_would_be():
    """The guard's rate limit looks back at the last action, so trials must not be that."""

    class Jumpy(ReachEnv):
        def __init__(self):
            super().__init__(robot=PANDA)

    low = np.full((1, DIMS), -1, np.float32)
    worker = EnvWorker(Jumpy)
    worker.handle(Request(begin=Begin(seed=3), actions=low))
    tried = worker.handle(Request(trials=np.stack([-low, low]))).trials
    again = worker.handle(Request(trials=np.stack([-low, low]))).trials
    assert np.array_equal(tried.truth, again.truth)
    done = worker.handle(Request(actions=-low, truth=True))
    assert np.array_equal(done.truth, tried.truth[0])


def test_success_and_the_end_of_an_episode_are_seen_in_trials():
    worker = EnvWorker(ReachEnv)
    worker.handle(Request(begin=Begin(seed=3)))
    still = np.zeros((1, ReachEnv.horizon, DIMS), np.float32)
    tried = worker.handle(Request(trials=still)).trials
    assert tried.over.tolist() == [True] and tried.success.tolist() == [False]
    truth = worker.handle(Request(truth=True)).truth
    way = np.zeros((1, 40, DIMS), np.float32)
    way[0, :, :2] = np.clip(truth[2:4] / 0.1 / 20, -1, 1)
    tried = worker.handle(Request(trials=way)).trials
    assert tried.success.tolist() == [True] and tried.steps[0] < 40


def test_an_environment_that_knows_no_truth_says_so():
    class Plain:
        embodiment = PANDA

        def reset(self, seed):
            pass

    with pytest.raises(ConfigError, match="only what a robot sees"):
        EnvWorker(Plain).handle(Request(begin=Begin(seed=0), truth=True))


# -- the critic


def made_outcomes(episodes=40, states=10, seed=0):
    random = np.random.default_rng(seed)
    truth = random.normal(size=(episodes * states, 4)).astype(np.float32)
    return Outcomes(
        truth=truth,
        value=(truth[:, 0] > 0).astype(np.float32),
        searching=random.random(len(truth)) < 0.5,
        episode=np.repeat(np.arange(episodes), states),
    )


def test_the_critic_learns_what_decides_and_changes_no_random_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    critic, figures = fit_critic(made_outcomes(), steps=300, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    fresh = made_outcomes(seed=9)
    right = (critic.values(fresh.truth, 0.0) > 0) == (fresh.value > 0.5)
    assert right.mean() > 0.9
    assert figures["critic_loss"] < 0.4 and figures["critic_states"] == 400
    again, _ = fit_critic(made_outcomes(), steps=300, seed=1)
    for name, tensor in critic.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_what_cannot_be_predicted_is_not_learnt_by_heart():
    noise = made_outcomes(episodes=20)
    random = np.random.default_rng(3)
    noise = replace(noise, value=(random.random(len(noise.value)) < 0.5).astype(np.float32))
    _, figures = fit_critic(noise, steps=400, seed=0)
    assert figures["critic_loss"] < 0.8 and figures["critic_steps"] < 400


def test_doubt_lowers_a_value():
    critic = Critic(3)
    truth = np.ones((2, 3), np.float32)
    assert (critic.values(truth, 1.0) < critic.values(truth, 0.0)).all()


def test_episodes_of_joined_outcomes_stay_apart():
    whole = joined([made_outcomes(3, 2), made_outcomes(2, 2)])
    assert whole.episode.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


# -- episodes


@pytest.mark.parametrize("acting", ["own", "explore", "search"])
def test_equal_seeds_give_equal_episodes_on_any_kind_of_lane(bundle, acting):
    one, lessons = searcher(bundle, inline()).run(jobs(acting), Nearer())
    two, same = searcher(bundle, inline()).run(jobs(acting), Nearer())
    assert told(one) == told(two)
    assert torch.equal(lessons.tensors["chunk"], same.tensors["chunk"])
    other, _ = searcher(bundle, inline(), seed=1).run(jobs(acting), Nearer())
    assert told(one) != told(other)
    with local_lanes(ReachEnv, 4, 3 * PX * PX * 3) as pool:
        assert told(searcher(bundle, pool).run(jobs(acting), Nearer())[0]) == told(one)


def test_what_the_search_finds_reaches_more(bundle):
    own, _ = searcher(bundle, inline()).run(jobs("own", 24), Nearer())
    found, _ = searcher(bundle, inline()).run(jobs("search", 24), Nearer())
    assert sum(e.success for e in found) > sum(e.success for e in own) + 5


def test_without_a_critic_nothing_is_tried_and_nothing_taught(bundle):
    made = searcher(bundle, inline())
    episodes, lessons = made.run(jobs("explore"), None)
    assert lessons is None and not made.tried_steps
    assert all(len(e.truths) == len(e.steps) for e in episodes)
    assert made.counts.env_steps == sum(e.length for e in episodes)


def test_the_lesson_of_a_state_is_what_the_search_would_execute_there(bundle):
    """In an episode the search acts in, each lesson is the next chunk that was executed."""
    made = searcher(bundle, inline(1))
    asked = made._pool._lanes[0].asked
    (episode,), lessons = made.run(jobs("search", 1), Nearer())
    executed = [r.actions for r in asked if r.actions is not None]
    assert len(executed) == len(lessons) == len(episode.truths)
    chunks = lessons.tensors["chunk"]
    for actions, lesson in zip(executed, chunks, strict=True):
        expected = made._actor.normalized(actions)
        torch.testing.assert_close(lesson[: len(actions)], expected)
    tried = [r.trials for r in asked if r.trials is not None]
    assert {len(t) for t in tried} == {SEARCH.proposals, SEARCH.neighbours}
    assert (lessons.gains >= 0).all()


def test_the_policys_own_episodes_are_taught_but_not_led(bundle):
    """The policy acts alone; the search only says what would have been better."""
    single = replace(SEARCH, proposals=1)  # one lane: a batch of another size rounds differently
    plain, _ = searcher(bundle, inline(1), single).run(jobs("own"), None)
    taught, lessons = searcher(bundle, inline(1), single).run(jobs("own"), Nearer())
    assert told(plain) == told(taught)
    assert len(lessons) == sum(len(e.truths) for e in taught)


def test_an_episode_is_cut_off_where_asked(bundle):
    episodes, _ = searcher(bundle, inline(), replace(SEARCH, max_chunks=2)).run(jobs("own"), None)
    assert all(len(e.truths) <= 2 for e in episodes)
    assert all(not e.success for e in episodes if len(e.truths) == 2 and e.length == 8)


def test_values_are_discounted_by_the_chunks_that_are_left(bundle):
    (episode,), _ = searcher(bundle, inline(1)).run(jobs("search", 1), Nearer())
    assert episode.success
    outcomes = outcomes_of([episode], 0.9, 4)
    left = (episode.length - np.array(episode.steps)) / 4
    np.testing.assert_allclose(outcomes.value, 0.9**left, rtol=1e-6)
    assert outcomes.searching.all()
    episode.success = False
    assert not outcomes_of([episode], 0.9, 4).value.any()


def test_chunks_nearby_differ_in_what_moves_the_arm_alone(bundle):
    made = searcher(bundle, inline(1))
    random = np.random.default_rng(0)
    chunk = np.zeros((8, DIMS), np.float32)
    moved = np.stack([made._shifted(chunk, 0.1, random) for _ in range(200)])
    dims = list(PANDA.action_dims)
    assert (np.abs(moved[..., :3]).max((0, 1)) > 0.1).all()
    grip = moved[..., dims.index("gripper_close.close")]
    assert set(np.unique(grip)) == {-1.0, 0.0, 1.0}
    assert (np.ptp(grip, 1) == 0).all()
    omron = Searcher(inline(1), made._actor, PANDA_OMRON, SEARCH, 0)
    wide = omron._shifted(np.zeros((8, PANDA_OMRON.action_dim), np.float32), 0.1, random)
    still = [i for i, d in enumerate(PANDA_OMRON.action_dims) if d.startswith(("base", "control"))]
    assert still and not wide[:, still].any()


# -- the run


def settings(tmp_path, **changes):
    given = {
        "bundle": "tiny",
        "task": "OpenDrawer",
        "out": tmp_path / "out",
        "minutes": 0.0,
        "iterations": 4,
        "eval_every": 3,
        "eval_episodes": 4,
        "search": SEARCH,
    }
    return SearchRunConfig(**(given | changes))


def training(config, bundle, run):
    run.mkdir(exist_ok=True)
    return SearchTraining(config, bundle, inline(), run)


def run_through(made):
    records = []
    train(made, records.append)
    return records


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_only_the_expert_learns_and_only_once_there_is_a_critic(tmp_path, bundle):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    before = weights(made.network)
    records = run_through(made)
    assert [sorted(r.keys() & {"critic_loss", "flow_loss"}) for r in records] == [
        [],
        *[["critic_loss", "flow_loss"]] * 3,
    ]
    assert ["eval_success" in r for r in records] == [True, False, False, True]
    changed = {n for n, p in made.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(n.startswith(("expert.", "time.", "action_")) for n in changed)
    assert json.dumps(records)


def test_a_resumed_run_has_the_numbers_of_one_that_was_not_interrupted(tmp_path, bundle):
    whole = training(settings(tmp_path), bundle, tmp_path / "whole")
    records = run_through(whole)
    run_through(training(settings(tmp_path, iterations=3), bundle, tmp_path / "parts"))
    second = training(settings(tmp_path), bundle, tmp_path / "parts")
    assert second.state.resume()
    (last,) = run_through(second)
    timeless = [k for k in last if not k.endswith("_s")]
    assert {k: last[k] for k in timeless} == {k: records[-1][k] for k in timeless}
    for name, value in weights(whole.network).items():
        assert torch.equal(value, dict(second.network.named_parameters())[name]), name
    for name, value in whole.state.average.tensors.items():
        assert torch.equal(value, second.state.average.tensors[name]), name


def test_only_the_windows_rounds_are_kept(tmp_path, bundle):
    made = training(settings(tmp_path, iterations=6), bundle, tmp_path / "run")
    run_through(made)
    names = sorted(path.name for path in (tmp_path / "run/replay").iterdir())
    assert names == [f"round-{i:05d}.safetensors" for i in (4, 5)]
    again = Replay(tmp_path / "run/replay", 2)
    again.load(6)
    assert len(again) == len(made.replay)


def test_a_missing_round_is_named(tmp_path, bundle):
    run_through(training(settings(tmp_path, iterations=2), bundle, tmp_path / "run"))
    (tmp_path / "run/replay/round-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"round-00001\.safetensors is missing"):
        training(settings(tmp_path), bundle, tmp_path / "run").state.resume()


def test_a_checkpoint_of_other_settings_is_refused_and_a_new_run_starts_clean(tmp_path, bundle):
    run_through(training(settings(tmp_path, iterations=2), bundle, tmp_path / "run"))
    other = settings(tmp_path, search=replace(SEARCH, sigma=0.3))
    made = training(other, bundle, tmp_path / "run")
    with pytest.raises(TrainingError, match="made with search"):
        made.state.resume()
    made.state.begin()
    assert not list((tmp_path / "run/replay").iterdir())


def test_a_gradient_that_is_no_number_ends_the_run(tmp_path, bundle, monkeypatch):
    made = training(settings(tmp_path), bundle, tmp_path / "run")
    draw = made.replay.draw
    monkeypatch.setattr(
        made.replay, "draw", lambda *given: (draw(*given)[0], draw(*given)[1] * float("nan"))
    )
    with pytest.raises(Diverged, match="iteration 1: its gradient is not finite"):
        run_through(made)


def test_the_average_acts_and_is_measured(tmp_path, bundle, monkeypatch):
    made = training(settings(tmp_path, iterations=3), bundle, tmp_path / "run")
    seen = []
    run = made.searcher.run
    monkeypatch.setattr(
        made.searcher, "run", lambda *given: seen.append(weights(made.network)) or run(*given)
    )
    stands = []
    train(
        made, lambda _: stands.append({n: t.clone() for n, t in made.state.average.tensors.items()})
    )
    for acted, stood in zip(seen[1:], stands, strict=False):
        assert all(torch.equal(acted[n], t) for n, t in stood.items())
    assert evaluate(made)["eval_n"] == 4


def test_the_result_is_a_bundle_that_says_how_it_was_made(tmp_path, bundle, monkeypatch):
    config = settings(tmp_path, bundle=str(bundle.path), iterations=2, export=False)
    main(config, lambda maker, count, size: inline(count))
    made = load_bundle(tmp_path / "out").manifest.made_by
    assert made["command"].startswith("z1-search")
    assert made["z1"]["search"]["sigma"] == SEARCH.sigma and made["z1"]["task"] == "OpenDrawer"
    assert "search" in (tmp_path / "out/README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbours": 0}, "refinement needs neighbours"),
        ({"search_share": 1.5}, "search_share is 1.5, expected at most 1"),
        ({"ema": 1.0}, "less than 1"),
        ({"gamma": 0.0}, "gamma is 0.0, expected more than 0"),
        ({"sigma": float("nan")}, "sigma is nan"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(SEARCH, **changes)


def test_a_run_needs_a_budget(tmp_path):
    with pytest.raises(ConfigError, match="never end"):
        settings(tmp_path, iterations=0)
