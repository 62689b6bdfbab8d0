import pytest

from feddp.client.refusal import CODES, RefusedError
from feddp.common.wire.records import MessageError


@pytest.mark.parametrize("code", CODES)
def test_a_refusal_says_its_code_and_nothing_else(code: str) -> None:
    error = RefusedError(code)
    assert isinstance(error, MessageError)
    assert (str(error), error.code) == (code, code)


def test_words_of_ones_own_are_no_code() -> None:
    with pytest.raises(ValueError, match="not a code"):
        RefusedError("user 42 has no rows")
