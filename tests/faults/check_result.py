"""What the checker found: by kind, by what it is about, and in which places."""

from dataclasses import dataclass, field

#: What can be wrong with a history.
KINDS = ("lost", "doubled", "invented", "changed", "out_of_order", "unaccounted")

_EXAMPLES = 5


@dataclass
class CheckResult:
    """Counts of what was sent, and `found`: kind → event (or whatever it is about) → where it is so."""

    events: int = 0
    attempts: int = 0
    acknowledged: int = 0
    found: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def note(self, kind: str, what: object, where: str) -> None:
        """One more place in which this is so of what it is about."""
        self.found[kind].setdefault(str(what), []).append(where)

    def count(self, kind: str) -> int:
        """How many events (batches, ranges) it is so of, in however many places."""
        return len(self.found[kind])

    @property
    def faults(self) -> dict[str, dict[str, list[str]]]:
        """The findings by kind, those only of which there are any."""
        return {kind: found for kind, found in self.found.items() if found}

    def as_dict(self) -> dict[str, object]:
        """Counts and findings, to be written as JSON."""
        counts = {kind: self.count(kind) for kind in KINDS}
        summary = {"events": self.events, "attempts": self.attempts, "acknowledged": self.acknowledged}
        return summary | counts | {"found": self.faults}

    def __str__(self) -> str:
        lines = [f"{self.attempts} attempts, {self.acknowledged} acknowledged; {self.events} events accepted; "]
        lines[0] += ", ".join(f"{kind.replace('_', ' ')} {self.count(kind)}" for kind in KINDS)
        for kind, found in self.faults.items():
            lines += [f"  {kind}: {what}: {'; '.join(where)}" for what, where in list(found.items())[:_EXAMPLES]]
            if len(found) > _EXAMPLES:
                lines.append(f"  {kind}: and {len(found) - _EXAMPLES} more")
        return "\n".join(lines)
