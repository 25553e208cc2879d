"""What the three walks share: the installed wheel, and the page it serves."""

import contextlib
import os
import subprocess

import pytest

from tests.browser import free_port, wait_for_port
from tests.helpers.wheel import environment, wheel

__all__ = ["environment", "wheel"]

# Of a recipe, what a laptop cannot do: the toy base in place of Stable Diffusion, three steps, one process.
SMALL = (
    "--model.init_args.network.init_args.base=checkpoints/tiny-stable-diffusion",
    *("--trainer.accelerator=cpu", "--trainer.max_steps=3", "--trainer.accumulate_grad_batches=1"),
    *("--trainer.val_check_interval=3", "--data.init_args.num_workers=0", "--trainer.log_every_n_steps=1"),
    "--trainer.precision=32-true",
)


class Terminal:
    """A person's terminal: a folder, and the commands of the installed wheel.

    Attributes:
        folder: where the commands run.
        said: lines that the last command wrote beside its output.
    """

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environment = kept | {"DATA_ROOT": "shards"}

    def onestep(self, *words, status=0):
        """Run a command, check its status, and return the lines that it printed; no traceback is ever shown."""
        command = [str(word) for word in (self.programs / "onestep", *words)]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        printed = done.stdout + done.stderr
        assert done.returncode == status, printed[-3000:]
        assert "Traceback" not in printed
        self.said = done.stderr.splitlines()
        return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]

    def python(self, code, folder):
        """Run Python code in a folder, as it stands."""
        command = [str(self.programs / "python"), "-c", code]
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    @contextlib.contextmanager
    def page(self, *words):
        """Serve the page of a model; its address."""
        port = free_port()
        command = [str(word) for word in (self.programs / "onestep", "serve", *words, "--port", port)]
        with (self.folder / "page.log").open("w") as log:
            server = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def terminal(environment, tmp_path):
    return Terminal(environment, tmp_path)
