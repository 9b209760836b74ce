"""Environment workers in this process, for tests that need no other."""

from support.reach_env import ReachEnv

from z1_ros.learning.rollout.env_pool import EnvPool
from z1_ros.learning.rollout.env_worker import EnvWorker


class InlineWorker:
    """A worker without a process; keeps the requests that it gets."""

    def __init__(self, kind=EnvWorker, make_env=ReachEnv):
        self._kind, self._make_env = kind, make_env
        self.requests = []
        self.restart()

    def send(self, request):
        self.requests.append(request)
        self._reply = self._worker.handle(request)

    def receive(self, timeout_s):
        return self._reply

    def restart(self):
        self._worker = self._kind(self._make_env)

    def hang_up(self):
        pass

    def close(self):
        pass


def inline_pool(count=4, kind=EnvWorker):
    """Return a pool of workers without processes."""
    return EnvPool([InlineWorker(kind) for _ in range(count)])


def open_inline(maker, count):
    """Open a pool as ``local_workers`` does, of ``ReachEnv`` whatever the maker makes."""
    return inline_pool(count)
