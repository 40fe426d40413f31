"""Write docs/states.md, the life of a worker, from the master's table: `PYTHONPATH=service python3 docs/states.py`.

Owns:    docs/states.md; a test fails when it is not what this writes.
Used by: whoever changed NEXT in pyserver.master.supervisor.
"""

from pathlib import Path
from typing import Final, get_args

from pyserver.master.supervisor import NEXT, Event, State

PAGE: Final = Path(__file__).resolve().parent / "states.md"

INTRODUCTION: Final = """\
# The life of a worker

<!-- Written by docs/states.py from NEXT in service/pyserver/master/supervisor.py: change it there. -->

Each worker slot is in one of these states, as the master sees it; `pyserver status` shows them. An event that has no
arrow cannot happen in that state: it would be an inconsistency of the master's own, and stops it.
"""

# What the states mean, and what brings the events about.
MEANING: Final = {
    State.EMPTY: "no process; filled again at once, or after a rest when workers die young",
    State.STARTING: "forked, has not said READY; not given connections",
    State.READY: "is given connections",
    State.DRAINING: "finishes what it has, is given nothing new",
    State.ABORTED: "was silent for too long: got SIGABRT, writes its stacks",
    State.KILLED: "got SIGKILL; its exit is awaited",
}
CAUSE: Final[dict[Event, str]] = {
    "spawned": "the master forked it",
    "ready": "its message READY arrived",
    "drain": "the service stops, or a reload has replaced the worker: the order DRAIN was sent",
    "hung": "no heartbeat within `server.start_within` (before the first) or `server.hung_after`",
    "killed": "the grace after SIGABRT is over, the drain deadline has passed, or the stop is forced",
    "exited": "its pidfd is readable: it was reaped, and what it left half done is mended",
}


def diagram() -> str:
    """Return the table as a state diagram that GitHub and editors draw (Mermaid)."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (old, event), new in sorted(NEXT.items(), key=lambda row: (row[0][0], row[1], row[0][1])):
        arrows.setdefault((old, new), []).append(event)
    lines = [f"    {old.name} --> {new.name}: {', '.join(events)}" for (old, new), events in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> EMPTY", *lines, "```"])


def matrix() -> str:
    """Return every state and event, with the state that follows, or a dash where there is none."""
    events = get_args(Event)
    rows = [["state", *events], ["---"] * (1 + len(events))]
    for state in State:
        after = [NEXT.get((state, event)) for event in events]
        rows.append([state.name, *("-" if new is None else new.name for new in after)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page() -> str:
    """Return the text of docs/states.md."""
    meanings = "\n".join(f"- **{state.name}**: {MEANING[state]}" for state in State)
    causes = "\n".join(f"- *{event}*: {CAUSE[event]}" for event in get_args(Event))
    return f"{INTRODUCTION}\n{diagram()}\n\n{meanings}\n\n## Events\n\n{causes}\n\n## Every cell\n\n{matrix()}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
