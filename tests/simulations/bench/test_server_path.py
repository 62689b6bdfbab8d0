"""What a release costs the server, on a real ledger and with exact noise."""

from feddp.simulations.bench.server_path import server_path


def test_the_server_path_is_measured_on_a_real_ledger_and_noise() -> None:
    seconds, copies = server_path(2, numbers=2000)
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert copies > 1
