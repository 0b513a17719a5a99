"""What a declaration says about a field besides its type. Everything that shows or stores the field derives from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from schemas.rules import Format, Rule

#: ClickHouse types and codecs that several fields share.
TIME = "DateTime64(6, 'UTC')"
WORD = "LowCardinality(String)"
WORD_OR_NULL = "LowCardinality(Nullable(String))"
POSITION = "Tuple(topic LowCardinality(String), partition UInt32, offset UInt64)"

TEXT_CODEC = "ZSTD(1)"
TIME_CODEC = "Delta, ZSTD(1)"
INTEGER_CODEC = "T64, ZSTD(1)"


@dataclass(frozen=True)
class SentField:
    """A field of the sender's API ("Payload Field Definitions")."""

    name: str
    type: type[str] | type[int]
    description: str
    example: object
    rules: tuple[Rule, ...] = ()
    format: Format | None = None  # how the text is read, if it stands for something else
    nullable: bool = False  # null and missing are accepted, and mean the same

    @property
    def attribute(self) -> str:
        """The field's name in Python."""
        return self.name.lower()


@dataclass(frozen=True)
class Field:
    """A field of a published record, which is also a column in ClickHouse."""

    description: str
    clickhouse: str
    codec: str = ""
    unit: str = ""
    sent: SentField | None = None  # the field of the sender's API that it comes from
    part_of: Literal["identity", "content", ""] = ""
    schema: Mapping[str, Any] = field(default_factory=dict)  # JSON Schema keywords of the value on the topics
    column: str = ""  # the column's name, where it is not the field's
    formerly: type | None = None  # a type that records of an earlier release have in its place
    since: str = ""  # the release that added the field: earlier records lack it, and `missing` stands for it
    missing: Any = None

    @property
    def comment(self) -> str:
        """The description with the unit, as column comments and documents show it."""
        return f"{self.description}, in {self.unit}" if self.unit else self.description


def reading_struct(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the struct for reading records of earlier releases too: with other types and missing fields."""
    hints = get_type_hints(struct)
    return msgspec.defstruct(
        struct.__name__, [_reading_field(name, hints[name], field) for name, field in fields_of(struct).items()],
        kw_only=True, gc=False, frozen=True,
    )  # fmt: skip


def _reading_field(name: str, hint: Any, field: Field) -> Any:
    accepted = hint if field.formerly is None else hint | field.formerly
    return (name, accepted, field.missing) if field.since else (name, accepted)


@cache
def fields_of(struct: type) -> Mapping[str, Field]:
    """Return the declared fields of a struct by name, in order; TypeError for one without a `Field` annotation."""
    return {name: _field(struct, name, hint) for name, hint in get_type_hints(struct, include_extras=True).items()}


def _field(struct: type, name: str, hint: Any) -> Field:
    annotations = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    for annotation in annotations:
        if isinstance(annotation, Field):
            return annotation
    raise TypeError(f"{struct.__name__}.{name} is not declared: annotate its type with a Field")
