"""The one exception that is shown to people."""


class OperatorError(Exception):
    """
    Something a person has to mend: printed as one line, exit status 1, never a traceback.

    `what` names the thing and its value; `remedy` says what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy
