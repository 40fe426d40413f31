"""What packaging/e2e shows: each check with its outcome and seconds, and the figures that were taken on the way.

usage: python -m tests.packaging.table JUNIT-XML
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET


def rows(report: ET.Element) -> Iterator[str]:
    """Yield a line for each check, under a heading for each file of them."""
    heading = ""
    for case in report.iter("testcase"):
        place = case.get("classname", "").rpartition(".")[2]
        if place != heading:
            heading = place
            yield f"\n{heading.removeprefix('test_')}"
        name, _, case_of = case.get("name", "").partition("[")
        sentence = name.removeprefix("test_").replace("_", " ")
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "ok")
        where = f" ({case_of.removesuffix(']')})" if case_of else ""
        yield f"  {outcome:7} {float(case.get('time', 0)):6.1f} s  {sentence}{where}"


def figures(report: ET.Element) -> Iterator[str]:
    """Yield what the checks recorded."""
    for given in report.iter("property"):
        yield f"  {given.get('value', ''):>8}  {given.get('name')}"


def main(path: str) -> None:
    report = ET.fromstring(re.sub(r"[^\x09\x0a\x0d\x20-\ud7ff\ue000-\ufffd]", "", Path(path).read_text()))
    checks, taken = list(rows(report)), list(figures(report))
    print(*checks, *(["\nfigures", *taken] if taken else []), sep="\n")
    good = sum(line.startswith("  ok") for line in checks)
    print(f"\n{good} of {sum(line.startswith('  ') for line in checks)} checks hold")


main(sys.argv[1])
