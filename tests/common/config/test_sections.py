import pytest

from feddp.common.config.run_config import RunConfig, settings, to_flat
from feddp.common.config.setting import Setting, read_value


@pytest.mark.parametrize(("key", "about"), settings().items())
def test_every_default_is_allowed(key: str, about: Setting) -> None:
    default = to_flat(RunConfig())[key]
    found, problem = read_value(key, default, about)
    assert problem is None
    assert found == (None if about.is_auto else default)


@pytest.mark.parametrize(("key", "about"), settings().items())
def test_every_setting_is_described_in_one_line(key: str, about: Setting) -> None:
    assert 0 < len(about.doc) < 200
    assert about.doc == about.doc.strip().rstrip(".")
    assert "\n" not in about.doc


def test_the_tokens_of_a_pass_are_those_of_all_passes_beside_each_other() -> None:
    assert "all forward passes that run beside each other" in settings()["nodes.pass-tokens"].doc
