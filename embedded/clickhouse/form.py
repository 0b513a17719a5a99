"""Multipart forms: parameters as fields, and external tables as files, as drivers send them beside a query."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import BodyPartReader, web

from embedded.clickhouse.connection import External
from embedded.clickhouse.errors import error

_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Form:
    """A form's fields, and its files: name → bytes."""

    fields: Mapping[str, str]
    files: Mapping[str, bytes]


async def read_form(request: web.BaseRequest) -> Form:
    """Read the form in a request's body; raise ClickHouseError when it is broken or larger than 256 MiB."""
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    size = 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name:
                raise error("BAD_ARGUMENTS", "A multipart form has a part without a name")
            data = bytes(await _read(part, _MAX_BYTES - size))
            size += len(data)
            if part.filename is None:
                fields[part.name] = data.decode("utf-8", "surrogateescape")
            else:
                files[part.name] = data
    except (ValueError, AssertionError) as problem:
        raise error("BAD_ARGUMENTS", f"The multipart form cannot be read: {problem}") from None
    return Form(fields, files)


def external_tables(form: Form, fields: Mapping[str, str]) -> tuple[External, ...]:
    """Return the files as tables; `name_structure` or `name_types`, and `name_format`, are among the fields."""
    return tuple(_external(name, data, fields) for name, data in form.files.items())


def describes_a_table(field: str, form: Form) -> bool:
    """Return whether a field belongs to one of the form's files, and is no setting."""
    return any(field == f"{name}_{part}" for name in form.files for part in ("structure", "types", "format"))


def _external(name: str, data: bytes, fields: Mapping[str, str]) -> External:
    structure = fields.get(f"{name}_structure", "")
    if not structure:
        types = fields.get(f"{name}_types", "")
        if not types:
            raise error("BAD_ARGUMENTS", f"The external table {name} has no structure: give {name}_structure")
        structure = ", ".join(f"_{i} {kind}" for i, kind in enumerate(_split(types), 1))
    return External(name, structure, fields.get(f"{name}_format", "TabSeparated"), data)


def _split(types: str) -> list[str]:
    parts, depth = [""], 0
    for character in types:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


async def _read(part: BodyPartReader, limit: int) -> bytearray:
    data = bytearray()
    while chunk := await part.read_chunk():
        data += chunk
        if len(data) > limit:
            raise error("BAD_ARGUMENTS", f"A multipart form may have {_MAX_BYTES} bytes")
    return data
