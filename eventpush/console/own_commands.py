"""Run eventpush's own commands beside the console: their work takes neither its memory nor its event loop."""

import asyncio
import contextlib
import sys
from typing import TypeVar

import msgspec

from runtime.platform.errors import OperatorError

T = TypeVar("T")

_AT_ONCE = asyncio.Semaphore(2)
_ANSWER_MAX_BYTES = 64 * 1024 * 1024


async def run_json(answer: type[T], *arguments: str, timeout_s: float = 60.0) -> T:
    """Run `eventpush ARGUMENTS` and return its JSON answer; its error becomes an `OperatorError`."""
    async with _AT_ONCE:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "eventpush",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_ANSWER_MAX_BYTES,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, errors = await process.communicate()
        except TimeoutError:
            raise OperatorError(
                f"`eventpush {arguments[0]}` took longer than {timeout_s:g} s", "run it in a terminal"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    try:
        return msgspec.json.decode(output, type=answer)
    except msgspec.DecodeError:
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        said = lines[-1].removeprefix("eventpush: ").removeprefix("Error: ") if lines else "it ended without an answer"
        raise OperatorError(f"`eventpush {arguments[0]}`: {said}", "") from None
