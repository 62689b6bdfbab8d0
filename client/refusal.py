"""RefusedError: why a node refuses a request; the reason appears only in its own log."""

from feddp.common.wire.records import MessageError

CODES = (
    "no-own-noise",  # asked to add the noise, but has no ledger for it
    "another-plan",  # the request's draw, clip or noise differs from its own plan's
    "answered",  # the round, or a later one, has been answered already
    "budget-spent",  # its own ledger has no charge left
    "too-many-users",  # it holds more users than nodes.users-per-node, its registered bound
    "ledger-missing",  # privacy.trust = "node", and no ledger is named
    "no-head",  # the request does not say where the server app's ledger stands
    "rolled-back",  # the server app's ledger does not extend the head that the node remembers
)


class RefusedError(MessageError):
    """The node refuses a request; the server app learns no more than that.

    `code`: one of `CODES`, for the node's own log.
    """

    def __init__(self, code: str):
        if code not in CODES:
            raise ValueError(f"{code}: not a code of a refusal")
        super().__init__(code)
        self.code = code
