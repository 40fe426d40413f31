"""What all targets share: coverage for atheris where it is there, the folder of inputs, and the seeds.

A target is a module with `one_input(data)`, which raises for a finding, and SEEDS, inputs that reach deep or once were
findings. Without atheris it can be imported all the same: test_seeds replays them.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import atheris  # type: ignore[import-untyped]  # not among what ./dev test installs
except ImportError:
    atheris = None

OneInput = Callable[[bytes], None]


def instrumented() -> contextlib.AbstractContextManager[object]:
    """Have what is imported inside tell which of its branches were taken."""
    if atheris is None:
        return contextlib.nullcontext()
    instrument: contextlib.AbstractContextManager[object] = atheris.instrument_imports(include=["pyserver"])
    return instrument


def main(one_input: OneInput, seeds: Sequence[bytes]) -> None:
    """Be the fuzzer; the first folder that is named begins with the seeds, if it is not there yet."""
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders and not folders[0].exists():
        folders[0].mkdir(parents=True)
        for number, seed in enumerate(seeds):
            (folders[0] / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
