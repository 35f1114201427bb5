"""A page has its icons in it as drawings, those that the theme's script would make."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from onebit_book import icons

SCRIPT = (icons.THEME / "static" / icons.SCRIPT).read_text("utf-8")


@pytest.fixture(scope="module")
def all_icons():
    return icons.read(SCRIPT)


def test_every_pack_is_read_and_an_icon_has_its_outline(all_icons):
    packs = [pack for pack, _ in all_icons]
    assert [packs.count(pack) > 100 for pack in ("fab", "far", "fas")] == [True] * 3
    assert all_icons["fas", "sun"] != all_icons["far", "sun"]
    assert all_icons["fas", "search"] == all_icons["fas", "magnifying-glass"]
    for width, height, path in all_icons.values():
        assert width > 0 and height == 512 and path[0] in "Mm"
        assert path in SCRIPT


def test_a_mark_becomes_its_drawing_and_keeps_what_styles_and_scripts_look_for(all_icons):
    mark = '<i class="theme-switch fa-solid fa-sun  fa-lg" data-mode="light" title="Light"></i>'
    path = all_icons["fas", "sun"].path
    assert icons.draw(f"<b>{mark} on</b>", all_icons) == (
        '<b><svg class="icon theme-switch fa-sun fa-lg" data-mode="light" viewBox="0 0 512 512" '
        f'aria-hidden="true"><path d="{path}"/></svg> on</b>'
    )


def test_a_drawn_page_stays_as_it_is(all_icons):
    page = icons.draw('<span class="fas fa-list"></span><i class="fab fa-github"></i>', all_icons)
    assert icons.draw(page, all_icons) == page


def test_the_script_that_draws_icons_is_left_out_and_no_other(all_icons):
    page = '<script src="a.js"></script>\n<script defer src="s/fontawesome.js?d=1"></script>\n<p>'
    assert icons.draw(page, all_icons) == '<script src="a.js"></script>\n<p>'


def test_an_icon_that_is_not_there_is_named(all_icons):
    with pytest.raises(ValueError, match=r'no icon for <i class="fas fa-no-such"></i>'):
        icons.draw('<i class="fas fa-no-such"></i>', all_icons)
