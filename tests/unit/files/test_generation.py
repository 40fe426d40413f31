import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

from pyserver.files.generation import Generations, View
from pyserver.files.resolve import OpenFile, Root, WouldBlock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A path that leads to the first of two releases."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page").write_text(name)
    (tmp_path / "current").symlink_to("one")
    return tmp_path / "current"


@pytest.fixture
def generations(path: Path) -> Iterator[Generations]:
    made = Generations(Root(path))
    yield made
    made.view(0).root.close()


def switch(path: Path, name: str) -> None:
    (path.parent / "next").symlink_to(name)
    (path.parent / "next").rename(path)


def page(view: View) -> bytes:
    return OpenFile(view.root.open(b"/page", cached_only=False)).read_all(cached_only=False)


def look(generations: Generations, second: int) -> bool:
    view = generations.view(second)
    view.look(cached_only=False)
    return generations.take(view)


def test_another_folder_is_another_generation(generations: Generations, path: Path) -> None:
    assert page(generations.view(1)) == b"one"
    switch(path, "two")
    assert look(generations, 1)
    assert page(generations.view(1)) == b"two"
    switch(path, "one")
    assert look(generations, 2)
    assert page(generations.view(2)) == b"one"


def test_a_clock_that_is_stepped_back_hides_no_switch(generations: Generations, path: Path) -> None:
    assert not look(generations, 10_000)
    switch(path, "two")
    assert look(generations, 6_400)
    assert page(generations.view(6_400)) == b"two"
    assert not look(generations, 6_400), "once in a second, now as before"
    assert generations.was_looked_at(6_400)


def test_the_path_is_looked_at_once_in_a_second(generations: Generations, path: Path) -> None:
    assert not look(generations, 5)
    switch(path, "two")
    assert not look(generations, 5)
    assert page(generations.view(5)) == b"one"
    assert look(generations, 6)


def test_a_view_stays_with_what_it_has_seen(generations: Generations, path: Path) -> None:
    view = generations.view(1)
    first = view.look(cached_only=False)
    switch(path, "two")
    assert view.look(cached_only=False) is first
    assert page(view) == b"one"


def test_what_stayed_the_same_is_known_from_memory(generations: Generations, path: Path) -> None:
    time.sleep(0.02)
    assert path.is_dir()  # a link's first use is written down in its atime, and for that the kernel wants to wait
    view = generations.view(1)
    root = view.root
    before = open_descriptors()
    assert view.look(cached_only=True) is root
    assert open_descriptors() == before
    assert not generations.take(view)


def test_another_folder_is_opened_only_by_who_may_wait(generations: Generations, path: Path) -> None:
    switch(path, "two")
    view = generations.view(1)
    with pytest.raises(WouldBlock):
        view.look(cached_only=True)
    runner = threading.Thread(target=view.look, kwargs={"cached_only": False})
    runner.start()
    runner.join()
    assert generations.take(view)


def test_a_look_that_took_long_does_not_go_back(generations: Generations, path: Path) -> None:
    slow = generations.view(1)
    slow.look(cached_only=False)
    switch(path, "two")
    assert look(generations, 2)
    assert not generations.take(slow)
    assert not generations.is_current(slow)
    assert page(slow) == b"one"  # its answer is whole all the same
    assert page(generations.view(2)) == b"two"


def test_two_looks_of_one_second_see_one_switch(generations: Generations, path: Path) -> None:
    switch(path, "two")
    views = [generations.view(1), generations.view(1)]
    for view in views:
        view.look(cached_only=False)
    assert [generations.take(view) for view in views] == [True, False]
    assert all(generations.is_current(view) for view in views)


def test_folders_that_are_renamed_are_told_apart(tmp_path: Path, path: Path) -> None:
    www = tmp_path / "one"
    generations = Generations(Root(www))
    www.rename(tmp_path / "was")
    (tmp_path / "two").rename(www)
    assert look(generations, 1)
    assert page(generations.view(1)) == b"two"


@pytest.mark.parametrize("by", ["missing", "a file", "a link to nowhere", "a ring"])
def test_what_disappears_is_kept_and_told_once(
    generations: Generations, path: Path, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.unlink()
    if by == "a file":
        path.write_text("")
    elif by != "missing":
        path.symlink_to("nowhere" if by == "a link to nowhere" else "current")
    caplog.set_level(logging.INFO, "pyserver")
    for second in (1, 2, 3):
        assert not look(generations, second)
        assert page(generations.view(second)) == b"one"
    assert len(caplog.messages) == 1
    assert "serving on from the folder that was there" in caplog.messages[0]
    switch(path, "one")
    assert not look(generations, 4)
    assert caplog.messages[1:] == [f"root {path} is back"]
    path.unlink()
    look(generations, 5)
    assert len(caplog.messages) == 3


def test_a_folder_that_may_not_be_searched_is_not_taken(path: Path) -> None:
    (path.parent / "two").chmod(0o600)
    for folder in (path.parent, *path.parent.parents[:-2]):
        folder.chmod(0o755)

    def body() -> None:
        generations = Generations(Root(path))
        inner = generations.view(1)
        inner.root.path = str(path.parent / "two")  # where the path leads by now
        inner.look(cached_only=False)
        assert not generations.take(inner)
        assert page(generations.view(1)) == b"one"

    as_nobody(body)


def test_only_one_errand_at_a_time(generations: Generations) -> None:
    errand = generations.errand(1)
    assert errand is not None
    assert generations.errand(1) is None
    assert generations.errand(2) is None  # the disk hangs: no second thread shall wait for it
    errand.look(cached_only=False)
    generations.take(errand)
    assert generations.errand(1) is None  # done in this second
    assert generations.errand(2) is not None


def test_what_is_missing_is_looked_for_again_within_its_second(generations: Generations, path: Path) -> None:
    """As in a switch that is not atomic: the old release is not served on until the next second."""
    path.unlink()
    assert not look(generations, 1)
    assert generations.misses
    first = generations.errand(1)
    assert first is not None
    assert generations.errand(1) is None  # one at a time
    first.look(cached_only=False)
    assert not generations.take(first)
    switch(path, "two")
    assert not look(generations, 1)  # requests do not look more often
    again = generations.errand(1)
    assert again is not None
    again.look(cached_only=False)
    assert generations.take(again)
    assert page(generations.view(1)) == b"two"
    assert generations.errand(1) is None  # nothing is missing any more


def test_a_look_of_a_request_that_took_long_does_not_go_back_within_a_second(
    generations: Generations, path: Path
) -> None:
    slow = generations.view(1)
    slow.look(cached_only=False)  # sees the first one
    path.unlink()
    assert not look(generations, 1)
    switch(path, "two")
    again = generations.errand(1)
    assert again is not None
    again.look(cached_only=False)
    assert generations.take(again)
    assert not generations.take(slow)
    assert page(generations.view(1)) == b"two"


def test_older_generations_are_closed(path: Path) -> None:
    before = open_descriptors()
    generations = Generations(Root(path))
    for second in range(1, 50):
        switch(path, "two" if second % 2 else "one")
        assert look(generations, second)
    assert len(open_descriptors() - before) == 1
    del generations
    assert open_descriptors() == before
