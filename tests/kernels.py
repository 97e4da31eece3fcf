"""A kernel as a notebook server runs it, for the tests of what happens in cells."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.children import ROOT


def notebook_environment(base: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Of a kernel that imports espresso from here, and keeps its files in `folder`."""
    ours = {
        name: str(folder / name)
        for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR")
    }
    return {**base, **ours, "PYTHONPATH": str(ROOT)}


class Kernel:
    """A kernel as a notebook server runs it.

    It is spoken to over sockets of the file system: a port that is free when the
    manager looks may be another test's when the kernel binds it.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self.watchdogs: list[int] = []
        # A short name: that of a socket has at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="espresso-")
        sockets = str(Path(self._folder.name, "kernel"))
        self.manager = KernelManager(transport="ipc", ip=sockets)
        self.manager.start_kernel(env=env, cwd=str(ROOT))
        self.client = self._connect()

    def _connect(self) -> BlockingKernelClient:
        client: BlockingKernelClient = self.manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        return client

    def run(self, cell: str) -> str:
        """What the cell prints; AssertionError if it fails."""
        printed: list[str] = []

        def output(message: dict[str, dict[str, object]]) -> None:
            printed.append(str(message["content"].get("text", "")))

        reply = self.client.execute_interactive(cell, timeout=60, output_hook=output)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(printed)

    def begin(self, cell: str) -> None:
        """Run a cell and do not wait for it; if it fails, others may follow at once."""
        self.client.execute(cell, stop_on_error=False)

    def interrupt(self) -> dict[str, Any]:
        """What the stop button does; the reply of the cell that ended by it."""
        self.manager.interrupt_kernel()
        reply: dict[str, Any] = self.client.get_shell_msg(timeout=60)
        return reply

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(env=self._env)
        self.client = self._connect()

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self._folder.cleanup()
