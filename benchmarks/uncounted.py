"""A copy of pyserver that counts nothing, to run beside the whole one: the difference is what counting costs.

Owns:    .cache/benchmarks/uncounted, made anew by each run of this file.
Never:   changes what a client gets; what others read of the copy's numbers are zeros.
Used by: benchmarks.main (the server "uncounted").

The statements that count are taken out of the source, by its syntax tree: those that change a tally (ipc.stats), or
call one, and in the loop of settled connections (worker.connection) those that add up for it.
"""

import ast
import shutil
import sys
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
COPY: Final = PROJECT / ".cache" / "benchmarks" / "uncounted"

_TALLIES: Final = frozenset(("tally", "_tally"))
_SUMS: Final = frozenset(("fine", "received", "sent_in_all"))  # of Connections.see_to()


class _Stripper(ast.NodeTransformer):
    """Takes out of a module what counts."""

    def __init__(self) -> None:
        self.taken = 0

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        summed = isinstance(node.target, ast.Name) and node.target.id in _SUMS
        return self._without(node) if summed or _is_of_a_tally(node.target) else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        return self._without(node) if any(map(_is_of_a_tally, node.targets)) else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        called = node.value.func if isinstance(node.value, ast.Call) else None
        return self._without(node) if called is not None and _is_of_a_tally(called) else node

    def visit_If(self, node: ast.If) -> ast.AST:
        """Where nothing is left of both branches, what would choose between them goes too."""
        before = self.taken
        self.generic_visit(node)
        empty = all(isinstance(each, ast.Pass) for each in (*node.body, *node.orelse))
        return self._without(node) if empty and self.taken > before else node

    def _without(self, node: ast.stmt) -> ast.AST:
        self.taken += 1
        return ast.copy_location(ast.Pass(), node)


def _is_of_a_tally(node: ast.AST) -> bool:
    """Tell whether this is something of a tally: `tally.requests`, `self._tally.classes[2]`; not the tally itself."""
    if not isinstance(node, (ast.Attribute, ast.Subscript)):
        return False
    base = node.value
    named = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
    return named in _TALLIES or _is_of_a_tally(base)


def stripped(source: str) -> tuple[str, int]:
    """Return a module without what counts in it, and how many statements that were."""
    stripper = _Stripper()
    tree = stripper.visit(ast.parse(source))
    return ast.unparse(ast.fix_missing_locations(tree)), stripper.taken


def make(service: Path, copy: Path) -> int:
    """Copy the package, and take out of its workers what counts; return how many statements that were."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(service, copy / "service", ignore=shutil.ignore_patterns("__pycache__"))
    taken = 0
    for file in (copy / "service" / "pyserver" / "worker").glob("*.py"):
        text, count = stripped(file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")
        taken += count
    return taken


if __name__ == "__main__":
    print(f"{COPY}: {make(PROJECT / 'service', COPY)} statements taken out", file=sys.stderr)
