"""What a policy hears: which input is missing, old, out of step or malformed."""

import pytest

pytest.importorskip("rclpy")

from support.fake_ros import FakeNode
from support.fakes import FakeEnv, contract_of

from z1_ros.errors import ObservationError
from z1_ros.nodes.configs import PolicyNodeConfig, SimBridgeConfig
from z1_ros.nodes.messages import origin_of, to_ns
from z1_ros.nodes.topics import JOINTS, Inputs, Outputs
from z1_ros.runtime.clock import ManualClock
from z1_ros.specs import PANDA

MS = 1_000_000
CAMERA = PANDA.cameras[0]


@pytest.fixture
def graph():
    """Inputs and outputs on one fake node, a clock, and the names of what was heard."""
    node, clock, heard = FakeNode(), ManualClock(), []
    config = PolicyNodeConfig(camera_max_age_s=0.4, state_max_age_s=0.2, camera_max_skew_s=0.1)
    inputs = Inputs(node, contract_of(), PANDA, config, clock, heard.append)
    outputs = Outputs(node, PANDA, SimBridgeConfig(mode="lockstep", video_size=12))
    return node, inputs, outputs, clock, heard


def publish(node: FakeNode, outputs: Outputs, stamp_ns: int, *, images: bool = True) -> None:
    """Publish an observation and deliver what was published."""
    env = FakeEnv()
    node.now_ns = max(node.now_ns, stamp_ns)
    outputs.observation(env.observe() if images else env.read_state(), stamp_ns, origin_ns=5 * MS)
    for topic, publisher in node.publishers_by_topic.items():
        while publisher.messages:
            node.say(topic, publisher.messages.pop(0))


def test_an_observation_survives_the_topics_with_the_time_since_its_episode_began(graph):
    node, inputs, outputs, _, heard = graph
    assert inputs.stamp_ns is None and inputs.frame_id == ""
    publish(node, outputs, 105 * MS)
    assert set(heard) == {JOINTS, "eef_pose", *PANDA.cameras}
    seen, wanted = inputs.observation("open it", images=True), FakeEnv().observe()
    assert (seen.stamp_ns, seen.instruction) == (100 * MS, "open it")
    assert {k: v.tobytes() for k, v in seen.images.items()} == {
        k: v.tobytes() for k, v in wanted.images.items()
    }
    assert {k: v.tobytes() for k, v in seen.state.items()} == {
        k: v.tobytes() for k, v in wanted.state.items()
    }
    assert not inputs.observation("open it", images=False).images
    assert origin_of(inputs.frame_id) == 5 * MS


def test_realtime_names_what_is_missing_or_too_old(graph):
    node, inputs, outputs, clock, _ = graph
    assert inputs.stale() == "nothing from joint_states yet (topic /joint_states)"
    publish(node, outputs, 105 * MS)
    assert inputs.stale() == ""
    clock.advance(0.25)
    assert inputs.stale() == "joint_states is 0.25 s old, at most 0.2 s allowed"
    publish(node, outputs, 355 * MS, images=False)
    clock.advance(0.19)
    assert inputs.stale().startswith(f"camera {CAMERA!r} is 0.44 s old")
    inputs.clear()
    assert inputs.stale().startswith("nothing from joint_states yet")
    assert inputs.ages_s()[JOINTS] == float("inf")


def test_realtime_names_a_camera_that_lags_and_one_that_shows_the_episode_before(graph):
    node, inputs, outputs, _, _ = graph
    publish(node, outputs, 305 * MS)
    late = inputs.sources[CAMERA].message
    late.header.stamp.nanosec = 105 * MS
    assert f"camera {CAMERA!r} lags 0.20 s behind camera" in inputs.stale()
    late.header.stamp.nanosec = 4 * MS
    assert inputs.stale().startswith(f"nothing from camera {CAMERA!r} yet")


def test_realtime_names_stamps_that_are_old_ahead_repeated_or_absent(graph):
    node, inputs, outputs, clock, _ = graph
    publish(node, outputs, 105 * MS)
    node.now_ns = 355 * MS
    assert inputs.stale() == "joint_states is stamped 0.25 s ago, at most 0.2 s allowed"
    node.now_ns = 4 * MS
    assert inputs.stale().startswith("joint_states is stamped 0.10 s in the future")
    node.now_ns = 105 * MS
    for _ in range(3):
        clock.advance(0.1)
        publish(node, outputs, 105 * MS)
    assert inputs.stale() == "joint_states repeats its stamp for 0.30 s"


def test_what_cannot_be_true_is_named(graph):
    node, inputs, outputs, _, _ = graph
    publish(node, outputs, 105 * MS)
    inputs.check()
    pose = inputs.sources["eef_pose"].message
    pose.header.frame_id = "world"
    with pytest.raises(ObservationError, match="eef_pose is in frame 'world', expected 'panda_li"):
        inputs.check()
    pose.header.frame_id = "panda_link0"
    inputs.sources[JOINTS].message.position[2] = float("nan")
    with pytest.raises(ObservationError, match="joint_states says that panda_joint3 is at nan"):
        inputs.check()


def test_lockstep_waits_for_all_that_belongs_to_one_stamp(graph):
    node, inputs, outputs, _, _ = graph
    publish(node, outputs, 105 * MS)
    assert inputs.missing(images=True) == ""
    publish(node, outputs, 155 * MS, images=False)
    assert inputs.missing(images=False) == ""
    assert inputs.missing(images=True).startswith(f"waiting for camera {CAMERA!r}")


def test_a_malformed_image_is_noticed_without_converting_any(graph, monkeypatch):
    node, inputs, outputs, _, _ = graph
    publish(node, outputs, 105 * MS)
    monkeypatch.setattr("z1_ros.nodes.topics.image_array", None)
    inputs.check()
    inputs.sources[CAMERA].message.encoding = "bayer_rggb8"
    with pytest.raises(ObservationError, match=f"camera {CAMERA!r} sends encoding 'bayer_rggb8'"):
        inputs.check()


def test_a_simulator_gives_the_clock_and_a_video_for_people(graph):
    node, _, outputs, _, _ = graph
    publish(node, outputs, 105 * MS)
    outputs.instruction("open it")
    outputs.video(FakeEnv(), 105 * MS)
    (video,) = node.publishers_by_topic["camera/video/image"].messages
    assert (video.height, video.width, to_ns(video.header.stamp)) == (12, 16, 105 * MS)
    assert node.publishers_by_topic["instruction"].messages[0].data == "open it"
    quiet = FakeNode()
    Outputs(quiet, PANDA, SimBridgeConfig()).video(FakeEnv(), 0)
    assert not {"/clock", "camera/video/image"} & set(quiet.publishers_by_topic)
