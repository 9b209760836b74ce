"""An environment worker in this process, for tests that need no other."""

from support.reach_env import ReachEnv

from z1_ros.learning.rollout.env_worker import EnvWorker


class InlineWorker:
    """A worker without a process; counts what it is asked."""

    def __init__(self):
        self.restart()
        self.asked = []

    def send(self, request):
        self.asked.append(request)
        self._reply = self._worker.handle(request)

    def receive(self, timeout_s):
        return self._reply

    def restart(self):
        self._worker = EnvWorker(ReachEnv)

    def hang_up(self):
        pass

    def close(self):
        pass
