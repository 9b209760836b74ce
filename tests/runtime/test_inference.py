"""The inference thread: one observation at a time, resets in order, failures as sentences."""

import threading
import time

import pytest
from support.fakes import FakeEnv, HashPolicy

from z1_ros.errors import ObservationError
from z1_ros.runtime.clock import ManualClock
from z1_ros.runtime.inference import InferenceResult, InferenceWorker, failure_text


class Slow(HashPolicy):
    """Waits for ``go``, and can be told to fail."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.failure: Exception | None = None
        self.clock = ManualClock()

    def infer(self, observation):
        """Take a quarter of a second by the clock."""
        self.go.wait()
        self.clock.advance(0.25)
        if self.failure is not None:
            raise self.failure
        return super().infer(observation)


@pytest.fixture
def worker():
    policy = Slow()
    made = InferenceWorker(policy, policy.clock)
    yield policy, made
    policy.go.set()
    made.close()


def result_of(worker: InferenceWorker) -> InferenceResult:
    """Wait for the result."""
    while (result := worker.take()) is None:
        time.sleep(0.001)
    return result


def test_nobody_waits_for_the_policy_and_the_result_says_how_long_it_took(worker):
    policy, inference = worker
    assert not inference.busy
    inference.submit(FakeEnv().observe(), generation=4)
    assert inference.busy and inference.take() is None
    policy.go.set()
    result = result_of(inference)
    assert (result.generation, result.seconds, result.error) == (4, 0.25, "")
    assert result.chunk.actions.shape == (8, 7)
    assert not inference.busy


def test_a_reset_takes_effect_before_the_next_observation(worker):
    policy, inference = worker
    policy.go.set()
    inference.submit(FakeEnv().observe(), 0)
    inference.reset(5)
    first = result_of(inference)
    inference.submit(FakeEnv().observe(), 1)
    second = result_of(inference)
    assert policy.seed == 5
    assert first.chunk.actions.tobytes() != second.chunk.actions.tobytes()


def test_a_failure_is_a_sentence_and_the_thread_lives_on(worker):
    policy, inference = worker
    policy.go.set()
    policy.failure = RuntimeError("out of memory")
    inference.submit(FakeEnv().observe(), 0)
    failed = result_of(inference)
    assert failed.chunk is None
    assert failed.error == "inference failed: RuntimeError: out of memory"
    policy.failure = None
    inference.submit(FakeEnv().observe(), 1)
    assert result_of(inference).chunk is not None


def test_an_error_of_ours_is_its_own_sentence():
    assert failure_text(ObservationError("no camera 'x'")) == "no camera 'x'"
    assert failure_text(ValueError("odd")) == "inference failed: ValueError: odd"
