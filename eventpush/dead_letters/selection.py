"""Which dead letters: options in, a condition for ClickHouse out. Pure."""

from typing import Any

import msgspec


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Dead letters that match everything given; times of arrival in µs since the epoch. Kept in the audit as JSON."""

    reasons: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    ids: tuple[str, ...] = ()
    max_letters: int | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is given."""
        return self == Selection()

    def condition(self, as_of_us: int | None = None) -> tuple[str, dict[str, Any]]:
        """Return a condition on `telematics.dead_letters` and its parameters.

        Letters named by their ids are selected whatever became of them; of the others, those that are open: without an
        event that resolves them, and not replayed already with a newer dead letter as the outcome. With `as_of_us` (µs
        since the epoch), newer dead letters that were stored later do not count: a replay's own must not end it.
        """
        conditions: list[str] = []
        parameters: dict[str, Any] = {}

        def add(condition: str, name: str, value: Any) -> None:
            conditions.append(condition)
            parameters[name] = value

        broken = []
        if self.reasons:
            parameters["reasons"] = list(self.reasons)
            broken.append("has({reasons:Array(String)}, reason.code)")
        if self.fields:
            parameters["fields"] = list(self.fields)
            broken.append("has({fields:Array(String)}, reason.field)")
        if broken:
            conditions.append(f"arrayExists(reason -> {' AND '.join(broken)}, reasons)")
        if self.senders:
            add("ifNull(sender, '') IN {senders:Array(String)}", "senders", list(self.senders))
        if self.since_us is not None:
            add("received_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')", "since", self.since_us)
        if self.until_us is not None:
            add("received_at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')", "until", self.until_us)
        if self.ids:
            add("dead_letter_id IN {ids:Array(UUID)}", "ids", list(self.ids))
        else:
            conditions.append(OPEN)
            parameters["as_of"] = _ANY_TIME_US if as_of_us is None else as_of_us
        return " AND ".join(conditions), parameters


OPEN = (
    "resolved_by_event_id IS NULL AND dead_letter_id NOT IN"
    " (SELECT assumeNotNull(replay_of) FROM telematics.dead_letters_store WHERE replay_of IS NOT NULL"
    " AND inserted_at <= fromUnixTimestamp64Micro({as_of:Int64}, 'UTC'))"
)
_ANY_TIME_US = 4_102_444_800_000_000  # 2100-01-01
