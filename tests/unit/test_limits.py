"""The bounds fit each other; each has its unit in its name and its reason above it."""

import re
from pathlib import Path

from pyserver import limits
from pyserver.config import OPTIONS

VALUES = {name: value for name, value in vars(limits).items() if name.isupper()}
SOURCE = Path(limits.__file__).read_text("utf-8")

# What else tells what is counted.
UNITS = re.compile(r"_(BYTES|S|PER_S|CHARACTERS|MAX|DESCRIPTORS|OBJECTS|ROUNDS|ROWS|TRIES)$")
COUNTED = {"KIB", "MIB", "BACKLOG", "BACKLOG_MIN", "MUTEX_PATIENCE_MASTER_S", "RELOAD_SHARE"}


def test_every_bound_is_a_positive_number() -> None:
    assert all(value > 0 for value in VALUES.values())


def test_every_bound_says_its_unit() -> None:
    assert {name for name in VALUES if not UNITS.search(name)} <= COUNTED


def test_every_bound_has_its_reason() -> None:
    blocks = SOURCE.split("\n\n")
    bare = [block for block in blocks if re.match(r"[A-Z_]+: Final", block) and "KIB" not in block]
    assert not bare, "a comment says why"


def test_a_full_batch_fits_what_scm_rights_allows() -> None:
    assert limits.BATCH_MAX <= 253


def test_a_worker_proves_itself_later_than_one_that_dies_at_once() -> None:
    assert limits.RESPAWN_DELAY_S < limits.PROVEN_AFTER_S


def test_who_waits_for_a_mutex_is_patient_for_several_turns() -> None:
    assert limits.MUTEX_TURN_S * 4 < limits.MUTEX_PATIENCE_MASTER_S < limits.MUTEX_PATIENCE_S


def test_a_head_takes_at_least_what_rfc_9112_3_asks_for() -> None:
    assert limits.TARGET_MAX_BYTES >= 8000
    assert limits.TARGET_MAX_BYTES < limits.HEAD_MAX_BYTES


def test_open_files_leave_room_for_the_rest() -> None:
    assert limits.FILES_KEPT_OPEN_MAX < limits.WORKER_RESERVED_DESCRIPTORS


def test_beats_come_well_before_anybody_is_judged_hung() -> None:
    bounds = OPTIONS["server.hung_after"].bounds
    assert bounds is not None
    assert bounds[0] > limits.ROUND_S * 2
    assert bounds[0] >= limits.TICK_S


def test_a_batch_of_log_lines_is_written_before_lines_are_dropped() -> None:
    assert limits.LOG_BATCH_BYTES < limits.LOG_WAITING_MAX_BYTES
