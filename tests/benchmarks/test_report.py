from benchmarks.measure import Sample
from benchmarks.report import Results, compare, cpu_table, number, plain
from benchmarks.workloads import WORKLOADS

PLAIN = WORKLOADS["keepalive-1k"]


def of(*cpu_us: float) -> list[Sample]:
    return [Sample(one, 1000.0, 100, 200, 0.9) for one in cpu_us]


def test_the_ratio_is_that_within_a_round() -> None:
    # The machine was slow in the second round, for both; the medians alone would say 2.5.
    results = {PLAIN.name: {"ours": of(4, 8, 4), "nginx": of(8, 16, 10)}}
    found = compare(results, PLAIN, "nginx")
    assert found is not None
    assert (found.ratio, found.target, found.met) == (2.0, 1.5, True)


def test_a_target_is_met_as_it_is_shown() -> None:
    results = {PLAIN.name: {"ours": of(1000), "nginx": of(1496)}}
    found = compare(results, PLAIN, "nginx")
    assert found is not None
    assert found.met
    results = {PLAIN.name: {"ours": of(1000), "nginx": of(1494)}}
    found = compare(results, PLAIN, "nginx")
    assert found is not None
    assert found.met is False


def test_only_nginx_has_a_target() -> None:
    found = compare({PLAIN.name: {"ours": of(4), "h2o": of(5)}}, PLAIN, "h2o")
    assert found is not None
    assert (found.ratio, found.target, found.met) == (1.25, None, None)


def test_who_could_not_do_it_has_no_figure() -> None:
    results: Results = {PLAIN.name: {"ours": of(4), "nginx": of(8), "granian": "answers 200 where 206 is right"}}
    assert cpu_table(results, [PLAIN, WORKLOADS["404"]], ["ours", "nginx", "granian"]) == [
        ["workload", "ours", "nginx", "granian", "nginx / ours", "target", ""],
        ["keepalive-1k", "4.00", "8.00", "-", "2.00", "1.50", "met"],
    ]
    assert compare(results, PLAIN, "granian") is None


def test_figures_have_three_digits() -> None:
    assert [number(value) for value in (0.0712, 9.949, 9.96, 99.44, 99.7, 436.2)] == [
        "0.07", "9.95", "10.0", "99.4", "100", "436",
    ]  # fmt: skip


def test_columns_are_aligned() -> None:
    assert plain([["a", "bc", ""], ["long", "1", ""]]) == "a     bc\nlong   1"
