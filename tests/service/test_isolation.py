"""The listener never handles what clients send: the code for it is not even in its memory (STYLE H11)."""

import subprocess
import sys

from tests.service.harness import TREE

FOREIGN = ("pyserver.http", "pyserver.files", "pyserver.handlers", "pyserver.worker")


def loaded_after(statements: str) -> set[str]:
    """Return what a fresh interpreter has loaded of ours after some statements."""
    code = f"import sys\n{statements}\nprint(*(name for name in sys.modules if name.startswith('pyserver')))"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(TREE / "service")}, capture_output=True, text=True, timeout=20, check=True
    )
    return set(done.stdout.split())


def test_master_loads_no_code_for_clients() -> None:
    loaded = loaded_after("import pyserver.cli, pyserver.master.main")
    assert "pyserver.master.acceptor" in loaded
    assert not {name for name in loaded if name.startswith(FOREIGN)}


def test_command_line_alone_loads_neither_role() -> None:
    """`pyserver check` and `status` start quickly, also on a machine in trouble."""
    loaded = loaded_after("import pyserver.cli")
    assert not {name for name in loaded if name.startswith((*FOREIGN, "pyserver.master", "pyserver.ipc"))}


def test_serving_ends_up_in_that_module() -> None:
    """What `pyserver serve` runs is what was looked at above: at the moment it enters the master's life."""
    loaded = loaded_after(
        "import pyserver.cli\n"
        "from pyserver.master import main\n"
        "seen = []\n"
        "main.run = lambda config, enter: seen.append(set(sys.modules)) or 0\n"
        "pyserver.cli.main(['serve', '--root', '/'])\n"
        "assert seen and not [n for n in seen[0] if n.startswith(('pyserver.http', 'pyserver.worker'))]"
    )
    assert not {name for name in loaded if name.startswith(FOREIGN)}
