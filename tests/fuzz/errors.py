"""What ends a run."""


class DisagreementError(AssertionError):
    """A reader said otherwise than the judge; the message that did it is in `payload`."""

    def __init__(self, kind: str, payload: bytes, what: str) -> None:
        super().__init__(f"{kind}: {what[:500]}")
        self.kind = kind
        self.payload = payload
