import re

import pytest

from pyserver.handlers.security import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_of_fields_that_can_be_sent(preset: str) -> None:
    names = [careful.name for careful in PRESETS[preset]]
    assert len(names) == len(set(names))
    for name, value, reason in PRESETS[preset]:
        assert re.fullmatch("[A-Za-z-]+", name)
        assert re.fullmatch("[!-~]([ -~]*[!-~])?", value)
        assert re.fullmatch(r"[A-Z].*\.", reason)


def test_strict_has_what_basic_has_and_more() -> None:
    basic, strict = ({careful.name for careful in PRESETS[name]} for name in ("basic", "strict"))
    assert basic < strict


def test_nothing_is_promised_over_plain_http() -> None:
    # RFC 6797 7.2
    assert not any(careful.name == "Strict-Transport-Security" for preset in PRESETS.values() for careful in preset)
