"""The "Used by:" of a module's docstring names who uses it: everyone who imports it, and no one who does not.

A package stands for its modules, and "all." for everyone. Parentheses say what for: `master` in there is a word, but
`master.main` is held to it as it is outside.
"""

import ast
import re
from typing import Final

import grimp
import pytest
from docs.generate import PROJECT

SERVICE: Final = PROJECT / "service/pyserver"
GRAPH: Final = grimp.build_graph("pyserver", cache_dir=None)
IMPORTERS: Final = {
    module.removeprefix("pyserver."): {
        importer.removeprefix("pyserver.") for importer in GRAPH.find_modules_that_directly_import(module)
    }
    for module in GRAPH.modules - {"pyserver"}
}
PACKAGES: Final = {module.partition(".")[0] for module in IMPORTERS if "." in module}

# Who uses a module without importing it, and how it comes by it.
GIVEN: Final = {
    ("handlers.status", "worker.connection"): "as a Handler, by worker.main",
    ("ipc.queue", "worker.pool"): "in its Assignment",
    ("master.pollset", "ipc.control"): "as two callables, by master.main",
    ("master.pollset", "master.acceptor"): "its epoll, by master.main",
    ("worker.holding", "worker.pool"): "as a part of the Connections",
    ("worker.shedding", "worker.pool"): "as a part of the Connections",
    ("worker.showing", "worker.pool"): "as a part of the Connections",
}


def used_by(module: str) -> str | None:
    """Return what a docstring says on it."""
    path = SERVICE / module.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    found = re.search(r"^Used by: (.*?)(?:\n\n|\Z)", ast.get_docstring(ast.parse(text)) or "", re.DOTALL | re.MULTILINE)
    return found and " ".join(found[1].split())


def named(text: str) -> set[str]:
    """Return the modules and packages of ours that a text names."""
    words = set(re.findall(r"(?<![\w./`])[a-z_]+(?:\.[a-z_]+)?(?![\w/`])", re.sub(r"\([^()]*\)", "", text)))
    dotted = set(re.findall(r"(?<![\w./`])[a-z_]+\.[a-z_]+(?![\w/`])", text))
    return {word for word in words | dotted if word in IMPORTERS or word.partition(".")[0] in PACKAGES}


def is_for(name: str, importer: str) -> bool:
    return importer == name or importer.startswith(f"{name}.")


@pytest.mark.parametrize("module", sorted(IMPORTERS.keys() - PACKAGES - {"__main__"} | {"config"}))
def test_it_names_who_uses_it(module: str) -> None:
    text, importers = used_by(module), IMPORTERS[module]
    assert text, "who uses it?"
    if text == "all.":
        return
    names = named(text)
    strangers = {name for name in names if not any(is_for(name, importer) for importer in importers)}
    assert strangers - {user for used, user in GIVEN if used == module} == set(), "they do not import it"
    left_out = {importer for importer in importers if not any(is_for(name, importer) for name in names)}
    assert left_out == set(), "they import it"


def test_who_is_said_to_be_given_one_is_named_and_does_not_import_it() -> None:
    for module, user in GIVEN:
        assert user in named(used_by(module) or ""), module
        assert user not in IMPORTERS[module], module
