"""The result of a check."""

from typing import Literal

import msgspec

CheckState = Literal["ok", "warning", "failed"]

Finding = tuple[CheckState, str]  # the detail ends with the remedy


class CheckResult(msgspec.Struct, frozen=True):
    """The result of a check; only `failed` makes the command's exit status 1."""

    check: str
    state: CheckState
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.check:<12} {self.detail}"
