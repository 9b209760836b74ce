"""``~/reload``: the whole new model or none of it, while the arm is looked after."""

import base64
import json
import shutil
import signal
import threading
from pathlib import Path

import pytest
from std_srvs.srv import Trigger
from support.fake_nodes import Salted
from support.fakes import FakeEnv, HashPolicy, contract_of
from support.graphs import PATIENCE_S, actions, fake_graph, is_hold, moving

from z1_ros.errors import GraphError
from z1_ros.graph.client import GraphClient
from z1_ros.models.bundle.manifest import MANIFEST, MODELS, load_bundle
from z1_ros.runtime.guard import Guard
from z1_ros.runtime.loop import StepLoop
from z1_ros.sim.episodes import run_episode
from z1_ros.specs import PANDA

POLICY = "policy_node"
LONG = {"FAKE_HORIZON": "1000000"}
HORIZON = 30
SCENE = ("OpenDrawer", 10_000)


def in_process(policy) -> bytes:
    """Return the simulator's snapshot after an episode with a policy that is freshly loaded."""
    env = FakeEnv(SCENE[0], PANDA, horizon=HORIZON)
    run_episode(env, StepLoop(policy, PANDA, replan_steps=4), Guard(PANDA), SCENE[1])
    return env.snapshot()


def through_ros(runner) -> bytes:
    """Return the same after an episode of the running graph."""
    runner.client.run_episode(*SCENE, timeout_s=PATIENCE_S)
    return base64.b64decode(runner.client.trigger("sim_bridge_node/snapshot"))


def bundle_of(client) -> str:
    """Return the identity of the bundle that the policy says it acts with."""
    return client.status(POLICY)[1].get("bundle", "")


def is_loading(client) -> bool:
    """Whether the policy says that it loads the slow model."""
    return client.status(POLICY)[1].get("reload") == "loading slow"


class Gate:
    """Keeps the slow model from being loaded until it is opened."""

    def __init__(self, path: Path):
        path.touch()
        self.env = {"FAKE_GATE": str(path)}
        self.open = path.unlink


@pytest.fixture
def gate(tmp_path):
    """A closed gate; nothing waits for it after the test."""
    path = tmp_path / "gate"
    yield Gate(path)
    path.unlink(missing_ok=True)


def another(runner) -> GraphClient:
    """Return a second client of the graph."""
    return GraphClient(runner.domain_id, discovery="localhost")


def test_an_episode_after_a_reload_is_the_one_of_a_node_started_with_the_new_model():
    with fake_graph(mode="lockstep", env={"FAKE_HORIZON": str(HORIZON)}) as runner:
        client = runner.client
        assert through_ros(runner) == in_process(HashPolicy())
        assert client.reload("other") == "sha256-of-other"
        client.wait(lambda: bundle_of(client) == "sha256-of-other", PATIENCE_S, "the new bundle")
        assert client.status(POLICY)[1]["model"] == "other"
        assert through_ros(runner) == in_process(Salted(contract_of(), "other"))
        client.trigger("sim_bridge_node/reset")  # the next exchange happens within an episode
        client.reload("third")
        assert through_ros(runner) == in_process(Salted(contract_of(), "third"))
        client.reload("kitchen-z1")
        assert through_ros(runner) == in_process(HashPolicy())


def test_the_old_model_acts_until_the_new_one_is_loaded_and_then_it_holds_before_it_goes_on(gate):
    with fake_graph(env=LONG | gate.env) as runner, another(runner) as second:
        client, watch = runner.client, actions(runner, "action")
        moving(watch)
        client.set_parameters(POLICY, {"model": "slow"})
        reloading = threading.Thread(target=second.reload)
        reloading.start()
        client.wait(lambda: is_loading(client), PATIENCE_S, "it loads")
        watch.seen.clear()
        moving(watch)
        gate.open()
        reloading.join(PATIENCE_S)
        client.wait(lambda: bundle_of(client) == "sha256-of-slow", PATIENCE_S, "the new bundle")
        watch.wait(lambda: any(is_hold(m) for m in watch.seen), "a hold")
        watch.seen.clear()
        moving(watch)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("bundle", "no model bundle at"),
        ("crash", "cannot load the model: RuntimeError: the library is broken"),
        ("misfit", "needs camera 'wrist'"),
        ("longer", r"cannot take over from 'kitchen-z1': they differ in contract\.horizon"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_the_old_one_acts_on(model, says):
    with fake_graph(mode="lockstep", env={"FAKE_HORIZON": str(HORIZON)}) as runner:
        client = runner.client
        with pytest.raises(GraphError, match=f"reload refused: .*{says}"):
            client.reload(model)
        client.wait(
            lambda: client.status(POLICY)[1]["reload"].startswith("refused: "),
            PATIENCE_S,
            "it says so",
        )
        assert client.status(POLICY)[1]["model"] == "kitchen-z1"
        assert bundle_of(client) == "sha256-of-kitchen-z1"
        assert client.state(POLICY) == "active"
        assert through_ros(runner) == in_process(HashPolicy())
        assert client.reload() == "sha256-of-kitchen-z1", "the parameter names what acts"
        client.reload("other")
        client.wait(
            lambda: not client.status(POLICY)[1]["reload"], PATIENCE_S, "no refusal any more"
        )


def test_a_model_of_another_rhythm_is_refused_where_the_graph_follows_the_bundles_own():
    """The simulator renders for the rhythm that the graph was started with."""
    with fake_graph(replan_steps=0, mode="lockstep", env={"FAKE_HORIZON": "8"}) as runner:
        with pytest.raises(
            GraphError, match=r"reload refused: .*differ in replan_steps \(2 and 8\)"
        ):
            runner.client.reload("oftener")
        assert runner.client.run_episode(*SCENE, timeout_s=PATIENCE_S).steps == 8


def test_a_refusal_leaves_a_moving_arm_moving():
    with fake_graph(env=LONG) as runner:
        watch = actions(runner, "action")
        moving(watch)
        with pytest.raises(GraphError, match="no model bundle"):
            runner.client.reload("bundle")
        watch.seen.clear()
        moving(watch)


def test_calls_at_the_same_time_are_served_one_after_the_other(gate):
    with (
        fake_graph(env=LONG | gate.env) as runner,
        another(runner) as second,
        another(runner) as third,
    ):
        moving(actions(runner, "action"))
        runner.client.set_parameters(POLICY, {"model": "slow"})
        replies: list[str] = []
        threads = [
            threading.Thread(target=lambda c=c: replies.append(c.reload())) for c in (second, third)
        ]
        for thread in threads:
            thread.start()
        runner.client.wait(lambda: is_loading(runner.client), PATIENCE_S, "one loads")
        gate.open()
        replies.append(runner.client.reload())
        for thread in threads:
            thread.join(PATIENCE_S)
        assert replies == ["sha256-of-slow"] * 3
        watch = actions(runner, "action")
        moving(watch)


def test_an_inactive_node_takes_a_new_model_silently_and_an_unconfigured_one_has_none():
    with fake_graph(env=LONG, autostart=False) as runner:
        client, watch = runner.client, actions(runner, "action")
        with pytest.raises(GraphError, match="not configured: there is no model to exchange"):
            client.reload()
        client.transition(POLICY, "configure")
        assert client.reload("other") == "sha256-of-other"
        assert client.state(POLICY) == "inactive"
        watch.collect(0.4)
        assert not watch.seen
        client.transition(POLICY, "activate")
        moving(watch)
        client.wait(lambda: bundle_of(client) == "sha256-of-other", PATIENCE_S, "the new bundle")


def test_cleanup_while_a_model_is_loading_wins(gate):
    with fake_graph(env=LONG | gate.env) as runner, another(runner) as second:
        client = runner.client
        client.set_parameters(POLICY, {"model": "slow"})
        refused: list[str] = []

        def ask() -> None:
            try:
                second.reload()
            except GraphError as error:
                refused.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        client.wait(lambda: is_loading(client), PATIENCE_S, "it loads")
        client.transition(POLICY, "deactivate")
        client.transition(POLICY, "cleanup")
        gate.open()
        asking.join(PATIENCE_S)
        assert "cleaned up while it loaded; nothing was exchanged" in refused[0]
        assert client.state(POLICY) == "unconfigured"
        client.wait(
            lambda: "nothing" in client.status(POLICY)[1]["reload"], PATIENCE_S, "it says so"
        )
        client.transition(POLICY, "configure")
        client.wait(
            lambda: not client.status(POLICY)[1]["reload"], PATIENCE_S, "no refusal any more"
        )
        assert bundle_of(client) == "sha256-of-slow", "the parameter still names it"


def test_a_signal_while_a_model_is_loading_ends_the_node_with_a_hold(gate):
    with fake_graph(env=LONG | gate.env) as runner, another(runner) as second:
        client, watch = runner.client, actions(runner, "action")
        moving(watch)
        client.set_parameters(POLICY, {"model": "slow"})
        service = second.node.create_client(Trigger, f"{POLICY}/reload")
        second.wait(service.service_is_ready, PATIENCE_S, "the service")
        service.call_async(Trigger.Request())
        client.wait(lambda: is_loading(client), PATIENCE_S, "it loads")
        client.check = lambda: None
        node = runner.processes[POLICY]
        node.send_signal(signal.SIGINT)
        watch.wait(lambda: node.poll() is not None, "end of the policy")
        watch.silence()
        assert is_hold(watch.seen[-1])
        assert node.returncode == 0


def test_a_bundle_that_changes_on_disk_is_taken_whole_or_not_at_all(tmp_path):
    """Real bundles: a copy of the shipped one, then with other scaling, then damaged."""
    path = tmp_path / "mine"
    shutil.copytree(MODELS / "kitchen-sft", path)
    first = load_bundle(path).sha256
    with fake_graph(model=str(path), mode="lockstep", env={"FAKE_HORIZON": str(HORIZON)}) as runner:
        client = runner.client
        client.wait(lambda: bundle_of(client) == first, PATIENCE_S, "its bundle")
        before = through_ros(runner)
        assert client.reload() == first
        assert through_ros(runner) == before
        data = json.loads((path / MANIFEST).read_text())
        data["normalization"]["action"]["q99"] = [
            2 * x for x in data["normalization"]["action"]["q99"]
        ]
        (path / MANIFEST).write_text(json.dumps(data))
        changed = client.reload()
        assert changed == load_bundle(path).sha256 != first
        after = through_ros(runner)
        assert after != before
        graph = path / "denoise.onnx"
        graph.write_bytes(graph.read_bytes()[:-1])
        with pytest.raises(GraphError, match=r"denoise\.onnx is corrupted or was changed"):
            client.reload()
        assert through_ros(runner) == after
