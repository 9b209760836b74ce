"""Each mode's driver: when it acts, holds, converts images, starts afresh."""

import time
from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from support.fake_ros import FakeNode, FakePublisher
from support.fakes import FakeEnv, HashPolicy

from z1_ros.nodes import topics
from z1_ros.nodes.configs import PolicyNodeConfig, SimBridgeConfig
from z1_ros.nodes.drivers import DRIVERS, NO_INSTRUCTION, STOPPED, NodeParts, Orders
from z1_ros.nodes.messages import read_action, to_ns
from z1_ros.nodes.status import Status
from z1_ros.runtime.loop import StepLoop
from z1_ros.specs import PANDA

STEP_NS, ORIGIN_NS = 50_000_000, 1_000_000_000


class Rig:
    """A driver on a fake node, and a robot that publishes what a fake simulator sees."""

    def __init__(self, mode: str, **settings):
        self.node = FakeNode(noise_seed=3)
        self.action = FakePublisher()
        self.status = Status(self.node, dict)
        self.orders = Orders(instruction="open it")
        self.policy = HashPolicy()
        parts = NodeParts(
            node=self.node, action=self.action, status=self.status, orders=self.orders
        )
        config = PolicyNodeConfig(mode=mode, **settings)
        self.driver = DRIVERS[mode](parts, self.policy, config, replan_steps=4)
        self.robot = topics.Outputs(self.node, PANDA, SimBridgeConfig(mode=mode))
        self.env = FakeEnv()

    def show(self, step: int, origin_ns: int = ORIGIN_NS) -> None:
        """Publish the observation of a control step."""
        self.node.now_ns = origin_ns + step * STEP_NS
        self.robot.observation(self.env.observe(), origin_ns + step * STEP_NS, origin_ns)
        for topic, publisher in list(self.node.publishers_by_topic.items()):
            while publisher.messages and not topic.startswith(("~", "/diag")):
                self.node.say(topic, publisher.messages.pop(0))

    def tick(self) -> None:
        """Let the driver's timer fire."""
        self.driver._on_timer()

    def inferred(self) -> None:
        """Wait for the inference under way."""
        while self.driver.loop._worker._results.empty():
            time.sleep(0.001)


@pytest.fixture
def realtime():
    rig = Rig("realtime")
    rig.driver.start()
    yield rig
    rig.driver.close()


@pytest.fixture
def lockstep():
    rig = Rig("lockstep")
    rig.driver.start()
    return rig


def test_realtime_converts_images_only_where_an_inference_begins(realtime, monkeypatch):
    converted = []
    convert = topics.image_array
    monkeypatch.setattr(topics, "image_array", lambda m, c: converted.append(c) or convert(m, c))
    realtime.show(0)
    realtime.tick()
    assert converted == list(PANDA.cameras)
    realtime.inferred()
    for step in range(1, 5):
        realtime.show(step)
        realtime.tick()
    assert converted == list(PANDA.cameras), "four actions of the chunk need no image"
    assert realtime.status.text == "acting"
    realtime.show(5)
    realtime.tick()
    assert len(converted) == 2 * len(PANDA.cameras)


def test_realtime_publishes_the_chunk_under_the_stamp_of_its_observation(realtime):
    realtime.show(2)
    realtime.tick()
    realtime.inferred()
    realtime.show(3)
    realtime.tick()
    hold, first = realtime.action.messages
    assert not any(hold.position[:6])
    chunk = HashPolicy()
    chunk.reset(3)
    wanted = chunk.infer(realtime.policy.seen[0]).actions[0]
    assert read_action(first)[0].tobytes() == wanted.tobytes()
    assert to_ns(first.header.stamp) == ORIGIN_NS + 2 * STEP_NS


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda rig: setattr(rig.orders, "instruction", ""), NO_INSTRUCTION),
        (lambda rig: setattr(rig.orders, "stopped", STOPPED), STOPPED),
        (lambda rig: rig.driver.inputs.clear(), "nothing from joint_states yet"),
        (
            lambda rig: setattr(
                rig.driver.inputs.sources[PANDA.cameras[1]].message, "encoding", "16UC1"
            ),
            f"camera {PANDA.cameras[1]!r} sends encoding '16UC1'",
        ),
    ],
)
def test_realtime_holds_by_name_and_forgets_its_plan(realtime, spoil, says):
    realtime.show(0)
    realtime.tick()
    realtime.inferred()
    realtime.tick()
    spoil(realtime)
    realtime.tick()
    assert realtime.status.text.startswith(f"holding: {says}")
    assert not any(realtime.action.messages[-1].position[:6])
    assert len(realtime.driver.loop.queue) == 0


def test_realtime_says_goodbye_with_a_hold_and_lockstep_does_not(realtime, lockstep):
    for rig in (realtime, lockstep):
        rig.show(0)
    realtime.tick()
    counts = len(realtime.action.messages), len(lockstep.action.messages)
    realtime.driver.stop()
    lockstep.driver.stop()
    assert len(realtime.action.messages) == counts[0] + 1
    assert not any(realtime.action.messages[-1].position[:6])
    assert len(lockstep.action.messages) == counts[1] == 1
    lockstep.show(1)
    assert len(lockstep.action.messages) == 1, "it is silent"


def test_lockstep_acts_once_for_each_stamp_as_the_loop_would_in_process(lockstep):
    policy = HashPolicy()
    loop = StepLoop(policy, PANDA, replan_steps=4)
    loop.reset(3)
    for step in range(6):
        lockstep.show(step)
    assert len(lockstep.action.messages) == 6
    for message, seen in zip(lockstep.action.messages, range(6), strict=True):
        observation = lockstep.driver.inputs.observation("open it", images=True)
        wanted = loop.act(replace(observation, stamp_ns=seen * STEP_NS))
        assert read_action(message)[0].tobytes() == wanted.tobytes()


def test_lockstep_publishes_its_action_again_where_the_simulator_asks_again(lockstep):
    lockstep.show(0)
    lockstep.show(0)
    first, *again = lockstep.action.messages
    assert again and all(message is first for message in again)
    assert len(lockstep.policy.seen) == 1


def test_another_episode_starts_afresh(lockstep):
    lockstep.show(0)
    lockstep.show(1)
    lockstep.node.parameters["noise_seed"] = 9
    lockstep.show(0, origin_ns=3 * ORIGIN_NS)
    assert lockstep.policy.seed == 9
    assert len(lockstep.policy.seen) == 2, "the first step of an episode begins an inference"


def test_lockstep_names_what_it_waits_for():
    rig = Rig("lockstep", input_timeout_s=0.1)
    rig.driver.start()
    rig.tick()
    assert rig.status.text.startswith("holding: waiting for joint_states")
    rig.orders.stopped = STOPPED
    rig.tick()
    assert rig.status.text == f"holding: {STOPPED}"


def test_what_inference_throws_is_named_and_nothing_is_published(lockstep):
    def broken(_):
        raise RuntimeError("out of memory")

    lockstep.policy.infer = broken
    lockstep.show(0)
    assert lockstep.status.text == "holding: inference failed: RuntimeError: out of memory"
    assert not lockstep.action.messages


def test_values_name_latency_ages_and_refused_chunks(realtime):
    realtime.show(0)
    realtime.tick()
    values = realtime.driver.values()
    assert {"infer_p50_ms", "infer_n", "chunks_refused", "age_joint_states_s", "held"} <= set(
        values
    )
