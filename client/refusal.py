"""RefusedError: what a node does not answer, told apart on its own log alone."""

from feddp.common.wire.records import MessageError

CODES = (
    "no-own-noise",  # asked to add the noise, and has no ledger for it
    "another-plan",  # asked for another draw, clip or noise than its own plan's
    "answered",  # the round, or a later one, is answered already
    "budget-spent",  # its own ledger has no charge left
    "too-many-users",  # it holds more users than nodes.users-per-node, its registered bound
    "ledger-missing",  # privacy.trust = "node", and no ledger is named
    "no-head",  # the request does not say where the server app's ledger stands
    "rolled-back",  # the server app's ledger does not extend the head that the node remembers
)


class RefusedError(MessageError):
    """A request that the node does not answer; the server app learns no more than that.

    Attributes:
      code: one of `CODES`, for the node's own log.
    """

    def __init__(self, code: str):
        if code not in CODES:
            raise ValueError(f"{code}: not a code of a refusal")
        super().__init__(code)
        self.code = code
