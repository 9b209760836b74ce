"""Runs a graph without ROS 2's launch, which the PyPI wheels of rclpy do not bring.

Each node is a process; if one ends, all end; no process outlives the runner, not even if the
runner is killed with SIGKILL.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Self, TextIO

import yaml

from z1_ros.errors import GraphError
from z1_ros.graph.client import GraphClient
from z1_ros.graph.dds import Discovery, dds_env
from z1_ros.graph.domains import FreeDomain, environment_domain_id
from z1_ros.graph.spec import Graph, NodeSpec
from z1_ros.runtime.claim import is_claimed, node_claim
from z1_ros.runtime.processes import die_with_parent

STOP_S = 6.0
"""Time to end by itself after SIGTERM, before SIGKILL [s]."""
UP_S = 15.0
"""Longest wait for the nodes to appear before talking to them anyway [s]."""


class GraphRunner:
    """Starts the processes of a graph and looks after them."""

    def __init__(
        self,
        graph: Graph,
        *,
        own_domain: bool = True,
        echo: TextIO | None = None,
        commands: Mapping[str, list[str]] | None = None,
        stopping: threading.Event | None = None,
    ):
        """Prepare; ``start`` (or ``with``) begins.

        Args:
            graph: What to run.
            own_domain: Choose a free domain, seen by this machine only.
            echo: Where the nodes' output goes, each line with the node's name; None keeps the
                last lines for error messages only.
            commands: Command of a node, instead of ``python -m z1_ros.nodes.<name>``.
            stopping: Once set, ``check`` raises KeyboardInterrupt, so that no wait goes on.

        Raises:
            ConfigError: ``ROS_DOMAIN_ID`` is needed and is no domain.
        """
        self.graph = graph
        self.processes: dict[str, subprocess.Popen] = {}
        self.client: GraphClient
        """Connected to the graph from ``start`` on."""
        self._stopping = stopping
        self._domain = FreeDomain() if own_domain else None
        self.domain_id = self._domain.id if self._domain else environment_domain_id()
        """The nodes' ROS domain."""
        self.discovery: Discovery = "localhost" if own_domain else graph.discovery
        """Who can find the nodes."""
        self._echo = echo
        self._commands = commands or {}
        self._tails: dict[str, deque[str]] = {}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every node; configure and activate those with a life cycle.

        Call it on a thread that lives as long as the graph shall: Linux ends the processes when
        the thread that started them ends.

        Raises:
            GraphError: A node ended or did not come up; the message holds its own words.
        """
        for node in self.graph.nodes:
            self._spawn(node)
        self._wait_until_up()
        self.client = GraphClient(self.domain_id, self.graph.namespace, self.discovery)
        self.client.check = self.check
        if self.graph.autostart:
            for node in self.graph.nodes:
                if node.lifecycle:
                    self.client.transition(node.name, "configure")
                    self.client.transition(node.name, "activate")

    def _wait_until_up(self) -> None:
        """Wait until the nodes exist: a participant that was there first is discovered 3 s late."""
        prefix = f"/{self.graph.namespace}/" if self.graph.namespace else "/"
        names = [node_claim(self.domain_id, prefix + node.name) for node in self.graph.nodes]
        deadline_s = time.monotonic() + UP_S
        while time.monotonic() < deadline_s and not all(map(is_claimed, names)):
            self.check()
            time.sleep(0.05)

    def check(self) -> None:
        """Raise GraphError if a node has ended, KeyboardInterrupt if we were asked to stop."""
        if self._stopping is not None and self._stopping.is_set():
            raise KeyboardInterrupt
        for name, process in self.processes.items():
            if (code := process.poll()) is not None:
                for reader in self._readers:
                    reader.join(timeout=0.2)
                raise GraphError(f"{name} ended with exit code {code}: {_words(self._tails[name])}")

    def stop(self) -> dict[str, int]:
        """End all processes, SIGKILL being the last resort; return their exit codes."""
        if getattr(self, "client", None) is not None:
            self.client.close()
            del self.client
        for process in self.processes.values():
            if process.poll() is None:
                # Not SIGINT: where we are a script's background job, the nodes inherit that it is
                # ignored, and one that still imports its libraries would not hear it.
                process.terminate()
        deadline_s = time.monotonic() + STOP_S
        for process in self.processes.values():
            try:
                process.wait(timeout=max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        if self._domain is not None:
            self._domain.close()
        return {name: process.returncode for name, process in self.processes.items()}

    def _spawn(self, node: NodeSpec) -> None:
        parameters = _parameters_file(node)
        process = subprocess.Popen(
            self._command(node, f"/proc/self/fd/{parameters}"),
            env=self._environment(node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(parameters,),
            # Ctrl-C reaches the runner alone, which passes it on once.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        os.close(parameters)
        self.processes[node.name] = process
        tail = self._tails[node.name] = deque(maxlen=12)
        reader = threading.Thread(target=self._read, args=(node.name, process, tail), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _command(self, node: NodeSpec, parameters: str) -> list[str]:
        program = self._commands.get(node.name) or [
            sys.executable,
            "-m",
            f"z1_ros.nodes.{node.name}",
        ]
        command = [*program, "--ros-args", "--log-level", self.graph.log_level]
        command += ["--params-file", parameters]
        if self.graph.params_file:
            command += ["--params-file", self.graph.params_file]
        if self.graph.namespace:
            command += ["-r", f"__ns:=/{self.graph.namespace}"]
        for name, other in node.remap.items():
            command += ["-r", f"{name}:={other}"]
        return command

    def _environment(self, node: NodeSpec) -> dict[str, str]:
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "RCUTILS_LOGGING_BUFFERED_STREAM": "1"}
        env |= {"ROS_DOMAIN_ID": str(self.domain_id)}
        env |= dds_env(self.discovery, self.graph.fastdds_profile, node.image_bytes)
        # A child may be another interpreter than this one, which must find its own rclpy.
        env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
        return env

    def _read(self, name: str, process: subprocess.Popen, tail: deque[str]) -> None:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            tail.append(line.rstrip())
            if self._echo is not None:
                print(f"[{name}] {line.rstrip()}", file=self._echo, flush=True)


def _words(tail: Collection[str]) -> str:
    """Return a node's sentence on why it ended, or the last lines of its output."""
    errors = [line.removeprefix("error: ") for line in tail if line.startswith("error: ")]
    return errors[-1] if errors else " | ".join(tail) or "it said nothing"


def _parameters_file(node: NodeSpec) -> int:
    """Return the descriptor of a YAML file that vanishes with the processes that have it open.

    A file, not ``-p``: values such as "open: the drawer" are no plain YAML scalars.
    """
    file = os.memfd_create(f"{node.name}.yaml")
    text = yaml.safe_dump({"/**": {"ros__parameters": dict(node.parameters)}})
    os.write(file, text.encode())
    return file
