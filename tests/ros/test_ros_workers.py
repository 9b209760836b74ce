"""Training behind the node graph: the numbers of the in-process path, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import TESTS

pytest.importorskip("torch")

from support.tiny_bundle import TINY, write_tiny_bundle

from z1_ros.errors import ConfigError, GraphicsUnavailable
from z1_ros.graph.ros_workers import RosWorkers
from z1_ros.graph.runner import GraphRunner
from z1_ros.graph.train_graph import worker_graph
from z1_ros.learning.rollout.collector import Act, Collector, GroupJob, sampling
from z1_ros.learning.rollout.env_pool import EnvPool, local_workers
from z1_ros.learning.rollout.flow_sde import FlowSde
from z1_ros.learning.rollout.plan import plan_group
from z1_ros.learning.rollout.sampler import Sampler
from z1_ros.models.bundle.manifest import WEIGHTS, load_bundle
from z1_ros.models.checkpoint.loading import load_network, read_tensors
from z1_ros.sim.registry import EnvMaker
from z1_ros.specs import PANDA

TASK, WORKERS = "OpenDrawer", 2
MAKER = EnvMaker(simulator="kitchen", task=TASK, embodiment=PANDA.name)
SETTINGS = {"cameras": PANDA.cameras, "replan_steps": 4}


@pytest.fixture(scope="module", autouse=True)
def graphics():
    """A way to render."""
    env = MAKER()
    env.reset(0)
    try:
        env.observe()
    except GraphicsUnavailable as error:
        pytest.skip(str(error))
    finally:
        env.close()


def strike(act: Act, harm: Callable[[], None], before: int = 5) -> Act:
    """Return a policy that does harm before one of its calls."""
    left = before

    def act_or_strike(turns):
        nonlocal left
        left -= 1
        if left == 0:
            harm()
        return act(turns)

    return act_or_strike


def node_of(pid: int, name: str) -> int:
    """Return the process of a node among the children of another."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    command = lambda child: Path(f"/proc/{child}/cmdline").read_bytes()  # noqa: E731
    (found,) = [int(child) for child in children if name.encode() in command(child)]
    return found


@pytest.fixture(scope="module")
def act(tmp_path_factory):
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    network = load_network(bundle.file(WEIGHTS), TINY).eval().requires_grad_(False)
    return sampling(Sampler(network, bundle, PANDA, 0), FlowSde(steps=3))


def collect(pool: EnvPool, act: Act) -> tuple:
    """Return everything that two groups with shared chunks are made of."""
    plan = plan_group(4, "prefix", 2)
    jobs = [GroupJob((7, i), plan, 100 + i) for i in range(2)]
    notes = []

    def note(turn, move, reply):
        named = turn.observation.images | turn.observation.state
        seen = sorted((name, value.tobytes()) for name, value in named.items())
        chunk = (move.actions.tobytes(), move.chunk.log_probs.numpy().tobytes())
        notes.append(((turn.key, turn.segment), seen, chunk, reply.step))

    collector = Collector(pool)
    groups = collector.run(jobs, act, max_chunks=4, note=note)
    success = [group.success.tolist() for group in groups]
    return sorted(notes, key=lambda note: note[0]), success, collector.counts


@pytest.fixture(scope="module")
def wanted(act):
    """What the in-process path gives."""
    with local_workers(MAKER, WORKERS) as pool:
        return collect(pool, act)


def test_rollouts_are_bit_identical_with_those_in_process(act, wanted):
    """Actions, states, images, log-probabilities and what they cost."""
    with RosWorkers(**SETTINGS)(MAKER, WORKERS) as pool:
        assert collect(pool, act) == wanted
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
def test_a_node_that_dies_or_hangs_is_replaced_and_nothing_changes(act, wanted, node, how):
    with RosWorkers(**SETTINGS, reply_timeout_s=10.0)(MAKER, WORKERS) as pool:
        worker = pool._workers[1]
        striking = strike(act, lambda: os.kill(node_of(worker.pid, node), how))
        assert collect(pool, striking) == wanted
        assert pool.replaced >= 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_learner(how):
    script = (
        "import signal, sys, time; sys.path[:0] = sys.argv[1:]\n"
        # These tests may run in the background of a shell script, where SIGINT is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from test_ros_workers import SETTINGS, MAKER, node_of\n"
        "from z1_ros.graph.ros_workers import RosWorkers\n"
        "from z1_ros.learning.rollout.env_worker import Request\n"
        "with RosWorkers(**SETTINGS)(MAKER, 1) as pool:\n"
        "    pool.send(0, Request(begin=1))\n"
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
        replace(worker_graph(MAKER, SETTINGS["replan_steps"]), namespace=f"arm{number}")
        for number in range(WORKERS)
    ]
    with GraphRunner(graphs[0]) as first:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(first.domain_id))
        with GraphRunner(graphs[1], own_domain=False) as last:
            workers = RosWorkers(**SETTINGS, attach="arm")
            with workers(MAKER, WORKERS) as pool:
                yield pool, last


def test_workers_whose_graphs_run_already_are_joined(act, wanted, attached):
    assert collect(attached[0], act) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("node", ["guard_node", "sim_bridge_node"])
def test_a_node_that_somebody_else_starts_again_changes_nothing(act, wanted, attached, node):
    pool, graph = attached

    first = graph.processes[node]

    def start_again():
        first.kill()
        graph._spawn(next(spec for spec in graph.graph.nodes if spec.name == node))

    # A worker that is about to begin another episode does not even notice.
    assert collect(pool, strike(act, start_again)) == wanted
    assert graph.processes[node] is not first


def test_workers_whose_graphs_do_not_run_are_named(monkeypatch):
    monkeypatch.setattr("z1_ros.graph.ros_workers.ATTACH_S", 0.5)
    make_env = RosWorkers(**SETTINGS, attach="/no/such/")._make_env(MAKER, 3)
    with pytest.raises(ConfigError, match=r"no sim_bridge_node and guard_node in .* /no/such3 of"):
        make_env()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_gives_equal_weights_through_ros_and_in_process(tmp_path):
    """An iteration with failures and successes, so that there is something to learn."""
    flags = "--bundle kitchen-sft --task TurnOnMicrowave --max-chunks 3 --workers 2 --groups 2 "
    flags += "--group-size 4 --shared-chunks 1 --minutes 0 --iterations 1 --filter-range 0 1 "
    flags += "--eval-every 2 --eval-episodes 1 --no-export"
    start = "from z1_ros.commands.entry import train; raise SystemExit(train())"
    results = []
    for through in ("inproc", "ros"):
        run, out = tmp_path / f"{through}-run", tmp_path / through
        command = [sys.executable, "-c", start, *flags.split(), "--through", through]
        command += ["--out", str(out)]
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
    metrics = results[0][0][0]
    assert 0 < metrics["train_success"] < 1 and metrics["grad_norm"] > 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--through", "air"], "--through is 'air'. Known: inproc, ros."),
        (["--attach", "worker"], "it needs --through ros"),
    ],
)
def test_wrong_settings_are_one_sentence(flags, says, capsys):
    from z1_ros.command import run_command
    from z1_ros.commands.train import TrainConfig, main

    given = ["--bundle", "kitchen-sft", "--task", TASK, "--out", "out", *flags]
    assert run_command("z1-train", main, TrainConfig, given) == 2
    assert says in capsys.readouterr().err
