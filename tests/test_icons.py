"""The book carries the icons that it shows and no others."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from onebit_book import icons

SCRIPT = (icons.THEME / icons.SCRIPT).read_text("utf-8")


def test_an_icon_is_kept_by_its_name_or_its_alias_and_the_code_around_it_stays():
    kept = icons.keep(SCRIPT, {"sun", "search"})
    assert "sun:[512" in kept and '"magnifying-glass":[512' in kept
    assert "moon:[" not in kept
    assert len(kept) < len(SCRIPT) / 10
    assert kept.startswith(SCRIPT[:1000]) and kept.endswith(SCRIPT[-1000:])


def test_with_every_name_asked_for_nothing_changes():
    class Every:
        def __contains__(self, name):
            return True

    assert icons.keep(SCRIPT, Every()) == SCRIPT


def test_a_script_without_icons_is_refused_not_written():
    with pytest.raises(ValueError, match=r"no icon is found in the theme's .*fontawesome\.js"):
        icons.keep("(() => {})()", {"sun"})
