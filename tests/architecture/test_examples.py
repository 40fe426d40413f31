from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_each_example_has_a_booted_test() -> None:
    tests = (PROJECT / "tests/systemd/test_examples.py").read_text()
    names = sorted(path.name for path in (PROJECT / "systemd/examples").iterdir())
    assert names
    assert [name for name in names if f'"{name}"' not in tests] == []
