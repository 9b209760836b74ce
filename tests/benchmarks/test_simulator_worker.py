"""One side of the simulator's benchmark: a script that replies line by line."""

import json
import subprocess
import sys

from z1_ros.benchmarks import simulator_worker

REQUEST = {"robot": "kitchen", "task": "OpenDrawer", "cameras": 1, "size": 32, "steps": 30}


def test_each_request_is_replied_to_with_a_rate():
    requests = [REQUEST, REQUEST | {"cameras": 0}]
    done = subprocess.run(
        [sys.executable, simulator_worker.__file__, "ours"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(reply) for reply in replies] == [{"steps_per_s"}] * 2
    assert all(reply["steps_per_s"] > 0 for reply in replies)
