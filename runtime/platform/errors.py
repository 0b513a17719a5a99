"""The one exception whose message is shown to operators."""


class OperatorError(Exception):
    """A problem that an operator must fix: printed as one line, exit status 1, never a traceback.

    `what` names the thing and its value; `remedy` says what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy
