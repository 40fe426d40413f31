"""Which of many names come most often, in memory that no number of names makes larger, and lately more than before.

Owns:    the names that are kept, and their counts.
Never:   takes a name for rarer than it is; for more frequent by `excess` at most, which is no more than all that was
         counted over the number of names kept.
Used by: top.main, top.view.

Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams" (2005): a new name
takes the place of the rarest one, and its count with it.
"""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

Name = TypeVar("Name")


class Frequent(NamedTuple, Generic[Name]):
    """A name that is kept."""

    name: Name
    times: float
    excess: float  # by how much that may be too high


class Sketch(Generic[Name]):
    """Counts of names, at most so many."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._counts: dict[Name, float] = {}
        self._excess: dict[Name, float] = {}
        self.total = 0.0

    def add(self, names: Iterable[Name]) -> None:
        """Count each."""
        counts = self._counts
        for name in names:
            self.total += 1
            if name in counts:
                counts[name] += 1
            elif len(counts) < self._kept:
                counts[name], self._excess[name] = 1, 0
            else:
                rarest = min(counts, key=counts.__getitem__)
                self._excess[name] = counts.pop(rarest)
                del self._excess[rarest]
                counts[name] = self._excess[name] + 1

    def fade(self, factor: float) -> None:
        """Let what was counted so far weigh less than what comes."""
        self.total *= factor
        for table in (self._counts, self._excess):
            for name in table:
                table[name] *= factor

    def most(self, count: int) -> list[Frequent[Name]]:
        """Return the most frequent ones."""
        first = sorted(self._counts, key=self._counts.__getitem__, reverse=True)[:count]
        return [Frequent(name, self._counts[name], self._excess[name]) for name in first]
