import os
import re
from collections.abc import Iterator

import pytest

from pyserver.config import LISTS, OPTIONS, TABLES, Config, Option, Server, Site
from pyserver.config.errors import Refused
from pyserver.config.options import IN_SITE
from pyserver.limits import MIB


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_row_is_complete(option: Option) -> None:
    assert re.fullmatch(r"([a-z]+\.){1,2}[a-z_]+", option.name)
    assert re.fullmatch(r"\S.*\S\.", option.text), "one sentence"
    assert option.required == bool(option.kind.example)
    assert option.kind.written
    if option.bounds:
        assert option.bounds[0] < option.bounds[1]
        assert option.unit
    if not option.required:
        written = list(option.default) if isinstance(option.default, tuple) else option.default
        assert option.take(written, "") == option.default


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if o.bounds], ids=lambda o: o.name)
def test_bounds_are_part_of_what_they_bound(option: Option) -> None:
    assert option.bounds is not None
    low, high = option.bounds
    step = 0.001 if isinstance(option.default, float) else 1
    assert option.take(low, "") == low
    assert option.take(high, "") == high
    with pytest.raises(Refused, match="too small"):
        option.take(low - step, "")
    with pytest.raises(Refused, match="too large"):
        option.take(high + step, "")


def test_the_table_and_the_classes_are_one() -> None:
    rows = [f"{table}.{name}" for table, part in (*TABLES.items(), *LISTS.items()) for name in part.FIELDS]
    lists = [f"site.{attribute}" for attribute in IN_SITE.values()]
    assert [f"{option.table}.{option.attribute}" for option in OPTIONS.values()] == [n for n in rows if n not in lists]
    assert {*Config.FIELDS} == {*TABLES, "listen", "sites", "files", "warnings"}
    assert {f"site.{key}" for key in IN_SITE} == {name for name in LISTS if "." in name}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("limits.cache_bytes", 32 * MIB, '"32MiB"'),
        ("limits.cache_bytes", 64 * 1024 * MIB, '"64GiB"'),
        ("limits.cache_bytes", 1025, "1025"),
        ("limits.cache_bytes", 0, "0"),
        ("server.drain", 25.0, "25"),
        ("server.drain", 0.5, "0.5"),
        ("server.workers", "auto", '"auto"'),
        ("cache.index", ("a", "b"), '["a", "b"]'),
        ("site.errors", {}, "{}"),
        ("site.listing", False, "false"),
    ],
)
def test_values_are_shown_as_they_are_written(name: str, value: object, expected: str) -> None:
    assert OPTIONS.get(name, OPTIONS["site.index"]).shown(value) == expected


# -- workers = "auto" ------------------------------------------------------------------------------


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process on one core only, as taskset or CPUAffinity= do it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_auto_is_one_worker_for_each_core() -> None:
    assert Config(sites=(Site("/"),)).worker_count() == min(len(os.sched_getaffinity(0)), 64)


@pytest.mark.usefixtures("one_core")
def test_auto_counts_only_cores_that_may_be_used() -> None:
    assert Config(sites=(Site("/"),)).worker_count() == 1


def test_a_number_is_taken_as_it_is() -> None:
    assert Config(sites=(Site("/"),), server=Server(workers=7)).worker_count() == 7
