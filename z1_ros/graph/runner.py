"""Runs a graph without ROS 2 launch, which the PyPI wheels of rclpy do not include.

Each node is a process. If one node ends, all end. All processes end with the runner, even if the
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
"""Time between SIGTERM and SIGKILL [s]."""
UP_S = 15.0
"""Longest wait for the discovery of the nodes; then they are called anyway [s]."""


class GraphRunner:
    """Starts, monitors and stops the processes of a graph."""

    def __init__(
        self,
        graph: Graph,
        *,
        own_domain: bool = True,
        echo: TextIO | None = None,
        commands: Mapping[str, list[str]] | None = None,
        stopping: threading.Event | None = None,
    ):
        """Prepare the runner; ``start`` or ``with`` starts the processes.

        Args:
            graph: Graph to run.
            own_domain: Whether to use an unused ROS domain that only this machine can discover.
            echo: Stream for the nodes' output, each line with the node's name; None keeps only
                the last lines, for error messages.
            commands: Node name -> command, instead of ``python -m z1_ros.nodes.<name>``.
            stopping: Event that makes ``check`` raise KeyboardInterrupt, which ends every wait.

        Raises:
            ConfigError: ``ROS_DOMAIN_ID`` is needed and is not a valid domain id.
        """
        self.graph = graph
        self.processes: dict[str, subprocess.Popen] = {}
        self.client: GraphClient
        """Client that is connected to the graph; available after ``start``."""
        self._stopping = stopping
        self._domain = FreeDomain() if own_domain else None
        self.domain_id = self._domain.id if self._domain else environment_domain_id()
        """ROS domain of the nodes."""
        self.discovery: Discovery = "localhost" if own_domain else graph.discovery
        """Which machines can discover the nodes."""
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
        """Start every node; configure and activate the lifecycle nodes.

        The calling thread must live as long as the graph: Linux ends the processes when the
        thread that started them ends.

        Raises:
            GraphError: A node ended or did not start; the message contains its error text.
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
        """Wait until the nodes exist, before the client joins the domain.

        Nodes would discover a participant that joined before them 3 s late.
        """
        prefix = f"/{self.graph.namespace}/" if self.graph.namespace else "/"
        names = [node_claim(self.domain_id, prefix + node.name) for node in self.graph.nodes]
        deadline_s = time.monotonic() + UP_S
        while time.monotonic() < deadline_s and not all(map(is_claimed, names)):
            self.check()
            time.sleep(0.05)

    def check(self) -> None:
        """Raise GraphError if a node has ended, KeyboardInterrupt if ``stopping`` is set."""
        if self._stopping is not None and self._stopping.is_set():
            raise KeyboardInterrupt
        for name, process in self.processes.items():
            if (code := process.poll()) is not None:
                for reader in self._readers:
                    reader.join(timeout=0.2)
                raise GraphError(f"{name} ended with exit code {code}: {_words(self._tails[name])}")

    def stop(self) -> dict[str, int]:
        """Stop all processes, if necessary with SIGKILL; return their exit codes."""
        if getattr(self, "client", None) is not None:
            self.client.close()
            del self.client
        for process in self.processes.values():
            if process.poll() is None:
                # Not SIGINT: if the runner is a background job of a script, the nodes inherit that
                # SIGINT is ignored, and a node that is still importing would not receive it.
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
            # Only the runner receives Ctrl-C; it then stops each process once.
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
        # The child may use another Python interpreter, which must import its own rclpy.
        env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
        return env

    def _read(self, name: str, process: subprocess.Popen, tail: deque[str]) -> None:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            tail.append(line.rstrip())
            if self._echo is not None:
                print(f"[{name}] {line.rstrip()}", file=self._echo, flush=True)


def _words(tail: Collection[str]) -> str:
    """Return the error message of a node that ended, or the last lines of its output."""
    errors = [line.removeprefix("error: ") for line in tail if line.startswith("error: ")]
    return errors[-1] if errors else " | ".join(tail) or "it said nothing"


def _parameters_file(node: NodeSpec) -> int:
    """Return the descriptor of an anonymous YAML file with the node's parameters.

    The file exists until the last process closes it. ``-p`` is not used, because values such as
    "open: the drawer" are not plain YAML scalars.
    """
    file = os.memfd_create(f"{node.name}.yaml")
    text = yaml.safe_dump({"/**": {"ros__parameters": dict(node.parameters)}})
    os.write(file, text.encode())
    return file
