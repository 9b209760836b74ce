"""Training behind the node graph: the numbers of the in-process path, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TESTS

pytest.importorskip("torch")

from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.errors import ConfigError, GraphicsUnavailable
from z1_ros.graph.ros_workers import RosWorkers
from z1_ros.graph.runner import GraphRunner
from z1_ros.graph.train_graph import worker_graph
from z1_ros.learning.rollout.collector import Collector, GroupJob
from z1_ros.learning.rollout.env_pool import EnvMaker, EnvPool, local_workers
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle
from z1_ros.models.checkpoint.loading import load_network, read_tensors
from z1_ros.sim.kitchen import KitchenConfig, KitchenEnv
from z1_ros.specs import PANDA

TASK, LANES = "OpenDrawer", 2
MAKER = EnvMaker(task=TASK, embodiment=PANDA.name)
IMAGE_BYTES = len(PANDA.cameras) * 3 * KitchenConfig().image_size ** 2
SETTINGS = {"cameras": PANDA.cameras, "replan_steps": 4}


@pytest.fixture(scope="module", autouse=True)
def graphics():
    """A way to draw."""
    env = KitchenEnv(TASK, PANDA)
    env.reset(0)
    try:
        env.observe()
    except GraphicsUnavailable as error:
        pytest.skip(str(error))
    finally:
        env.close()


class Strike:
    """Lets the policy act, and does harm before one of its answers."""

    def __init__(self, actor: Actor, harm: Callable[[], None], before: int = 5):
        self._actor, self._harm, self._left = actor, harm, before

    def act(self, *given):
        """Act as the policy does."""
        self._left -= 1
        if self._left == 0:
            self._harm()
        return self._actor.act(*given)


def node_of(pid: int, name: str) -> int:
    """Return the process of a node among the children of another."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    command = lambda child: Path(f"/proc/{child}/cmdline").read_bytes()  # noqa: E731
    (found,) = [int(child) for child in children if name.encode() in command(child)]
    return found


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    network = load_network(bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)
    return Sampler(network, bundle, PANDA, 0)


def collect(pool: EnvPool, actor) -> tuple:
    """Return everything that two groups with a shared prefix are made of."""
    plan = plan_group(4, "prefix", 2)
    jobs = [GroupJob((7, i), plan, 100 + i) for i in range(2)]
    collector = Collector(pool, actor, SETTINGS["replan_steps"], max_chunks=4, trace=True)
    groups = collector.run(jobs, FlowSde(steps=3))
    traces = [[rollout.trace for rollout in group.segments] for group in groups]
    log_probs = [
        executed.chunk.log_probs.numpy().tobytes()
        for group in groups
        for rollout in group.segments
        for executed in rollout.executed
    ]
    assert all(trace for group in traces for trace in group)
    return traces, log_probs, collector.counts


@pytest.fixture(scope="module")
def wanted(actor):
    """What the in-process path gives."""
    with local_workers(MAKER, LANES, IMAGE_BYTES) as pool:
        return collect(pool, actor)


def test_rollouts_are_bit_identical_with_those_in_process(actor, wanted):
    """Actions, states, images, log-probabilities and what they cost."""
    with RosWorkers(**SETTINGS)(MAKER, LANES, IMAGE_BYTES) as pool:
        assert collect(pool, actor) == wanted
        assert pool.replaced == 0
        graphs = [node_of(worker.pid, "sim_bridge_node") for worker in pool._workers]
    assert not any(Path(f"/proc/{pid}").exists() for pid in graphs), "all processes have ended"


@pytest.mark.parametrize(
    ("node", "how"),
    [
        ("sim_bridge_node", signal.SIGKILL),
        pytest.param("guard_node", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("sim_bridge_node", signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
def test_a_node_that_dies_or_hangs_is_replaced_and_nothing_changes(actor, wanted, node, how):
    with RosWorkers(**SETTINGS, reply_timeout_s=10.0)(MAKER, LANES, IMAGE_BYTES) as pool:
        worker = pool._workers[1]
        strike = Strike(actor, lambda: os.kill(node_of(worker.pid, node), how))
        assert collect(pool, strike) == wanted
        assert pool.replaced >= 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_learner(how):
    script = (
        "import signal, sys, time; sys.path[:0] = sys.argv[1:]\n"
        # These tests may run in the background of a shell script, where SIGINT is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from test_train_ros import IMAGE_BYTES, SETTINGS, MAKER, node_of\n"
        "from z1_ros.graph.ros_workers import RosWorkers\n"
        "from z1_ros.learning.rollout.env_worker import Begin, Request\n"
        "with RosWorkers(**SETTINGS)(MAKER, 1, IMAGE_BYTES) as pool:\n"
        "    pool.send(0, Request(begin=Begin(seed=1)))\n"
        "    pool.receive(0)\n"
        "    worker = pool._workers[0].pid\n"
        "    names = ('sim_bridge_node', 'guard_node')\n"
        "    print(worker, *(node_of(worker, name) for name in names), flush=True)\n"
        "    time.sleep(3600)\n"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(here), str(TESTS)]
    learner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids = learner.stdout.readline().split()
    assert len(pids) == 3
    learner.send_signal(how)
    learner.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)


@pytest.fixture
def attached(monkeypatch):
    """Workers whose graphs run already, and what looks after the last one's nodes."""
    graphs = [
        worker_graph(TASK, PANDA.name, SETTINGS["replan_steps"], namespace=f"arm{number}")
        for number in range(LANES)
    ]
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with GraphRunner(graphs[0]) as first:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(first.domain_id))
        with GraphRunner(graphs[1], own_domain=False) as last:
            workers = RosWorkers(**SETTINGS, attach="arm")
            with workers(MAKER, LANES, IMAGE_BYTES) as pool:
                yield pool, last


def test_lanes_whose_graphs_run_already_are_joined(actor, wanted, attached):
    assert collect(attached[0], actor) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("node", ["guard_node", "sim_bridge_node"])
def test_a_node_that_somebody_else_starts_again_changes_nothing(actor, wanted, attached, node):
    pool, graph = attached

    def start_again():
        graph.processes[node].kill()
        graph._spawn(next(spec for spec in graph.graph.nodes if spec.name == node))

    assert collect(pool, Strike(actor, start_again)) == wanted
    assert pool.replaced >= 1


def test_lanes_whose_graphs_do_not_run_are_named(actor, monkeypatch):
    monkeypatch.setattr("z1_ros.graph.ros_workers.ATTACH_S", 0.5)
    make_env = RosWorkers(**SETTINGS, attach="/no/such/")._make_env(MAKER, 3)
    with pytest.raises(ConfigError, match=r"no sim_bridge_node and guard_node in .* /no/such3 of"):
        make_env()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_gives_equal_weights_through_ros_and_in_process(tmp_path):
    """An iteration with failures and successes, so that there is something to learn."""
    flags = "--bundle kitchen-sft --task TurnOnMicrowave --max-chunks 3 --workers 2 --groups 2 "
    flags += "--group-size 4 --prefix 1 --prefix-end 1 --minutes 0 --iterations 1 --filter-low 0 "
    flags += "--eval-every 2 --eval-episodes 1 --no-export"
    start = "from z1_ros.commands.entry import train; raise SystemExit(train())"
    results = []
    for through in ("inproc", "ros"):
        run, out = tmp_path / f"run-{through}", tmp_path / through
        command = [sys.executable, "-c", start, *flags.split(), "--through", through]
        command += ["--run", str(run), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        weights = read_tensors(run / "checkpoint.safetensors")
        results.append(
            (
                [{k: v for k, v in record.items() if not k.endswith("_s")} for record in records],
                {name: value.numpy().tobytes() for name, value in weights.items()},
                load_bundle(out).manifest.files[WEIGHTS],
            )
        )
    assert results[0] == results[1]
    figures = results[0][0][0]
    assert 0 < figures["train_success"] < 1 and figures["grad_norm"] > 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--through", "air"], "through is 'air', expected 'inproc' or 'ros'"),
        (["--attach", "worker"], "it needs --through ros"),
    ],
)
def test_wrong_settings_are_one_sentence(flags, says, capsys):
    from z1_ros.command import run_command
    from z1_ros.commands.train import TrainConfig, main

    given = ["--bundle", "kitchen-sft", "--task", TASK, "--out", "out", *flags]
    with pytest.raises(SystemExit):
        run_command("z1-train", main, TrainConfig, given)
    said = "".join(char for char in capsys.readouterr().err if char not in "│╭╮╰╯─")
    assert says in " ".join(said.split())
