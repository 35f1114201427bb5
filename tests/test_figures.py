"""Figures are the same bytes twice, follow the page's ink, and never come without alt text."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest

from onebit.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    NARROW,
    PURPLE,
    SERIES,
    VERMILLION,
    figure,
    show,
)
from onebit.figures import figure_svg as svg_of

SVG = "{http://www.w3.org/2000/svg}"
WHITE, NIGHT = "#ffffff", "#14181e"


def draw():
    with figure(1, 2, size=(6, 3)) as (fig, axes):
        for dash, ax in zip(SERIES, axes, strict=False):
            ax.plot([0, 1, 2], [0, 1, 4], marker=dash[2], label="squares")
            ax.set(title="Title", xlabel="$x$", ylabel="y")
        axes[0].legend()
        axes[1].hist([1, 2, 2, 3], bins=3)
    return fig


def luminance(colour):
    """WCAG 2: relative luminance of an sRGB colour."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_formula_is_wcags():
    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast("#777777", WHITE) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("page", [WHITE, NIGHT])
@pytest.mark.parametrize("colour", [BLUE, VERMILLION, GREEN, PURPLE, GREY])
def test_every_colour_stands_out_on_light_and_dark_pages(colour, page):
    assert contrast(colour, page) >= 3


def test_no_two_series_differ_by_colour_alone():
    for column in range(3):
        assert len({series[column] for series in SERIES}) == len(SERIES)
    with figure() as (_, ax):
        lines = [ax.plot([0, 1], [i, i])[0] for i in range(len(SERIES))]
    assert [line.get_color() for line in lines] == [series[0] for series in SERIES]
    assert len({line.get_linestyle() for line in lines}) == len(SERIES)


def test_the_same_drawing_gives_the_same_bytes():
    first, second = svg_of(draw()), svg_of(draw())
    assert first == second
    with figure() as (other, ax):
        ax.plot([0, 1, 2])
    svg_of(other)
    assert svg_of(draw()) == first


def test_a_last_digit_that_differs_between_runs_does_not_show_in_the_bytes():
    def drawn(shift):
        with figure() as (fig, ax):
            ax.plot([0, 1 / 3, 1], [2 / 7 + shift, 1 / 7, 3 / 7])
        return svg_of(fig)

    assert drawn(1e-9) == drawn(0) != drawn(1e-2)
    for tag in re.findall(r"<[^>]*>", drawn(0)):
        assert not re.search(r"\d\.\d{4}", tag), tag


def test_the_svg_scales_follows_the_page_and_tells_nothing_of_the_day():
    svg = svg_of(draw())
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("width") == "100%" and "height" not in root.attrib
    assert root.get("viewBox") and not re.search(r"<svg[^>]*\dpt\"", svg)
    assert INK not in svg and "currentColor" in svg
    assert "metadata" not in svg and "<text" in svg
    fills = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert fills <= {BLUE, VERMILLION, GREEN, PURPLE}, fills


def test_every_reference_inside_the_svg_has_its_target():
    svg = svg_of(draw())
    wanted = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert wanted <= set(re.findall(r'id="([^"]+)"', svg))


def test_a_shown_figure_carries_its_alt_text_and_caption_escaped():
    shown = show(draw(), 'A "curve" < 1.', caption="a & b")
    page = shown._repr_html_()
    assert 'role="img" aria-label="A &quot;curve&quot; &lt; 1."' in page
    assert "<figcaption>a &amp; b</figcaption>" in page and "max-width:600px" in page
    assert repr(shown) == 'Figure: A "curve" < 1.'
    assert "figcaption" not in show(draw(), "A curve.")._repr_html_()


def texts(svg):
    """Count the texts of a drawing, and give its width and height in points."""
    root = ElementTree.fromstring(svg)
    found = Counter("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    return found, *map(float, root.get("viewBox").split()[2:])


def test_on_a_phone_the_panels_stand_below_each_other_and_each_has_its_axis():
    with figure(1, 2, size=(7, 3), sharey=True) as (fig, axes):
        for ax, title in zip(axes, ("first", "second"), strict=True):
            ax.plot([0, 1], [10, 70])
            ax.set(title=title, yticks=[10, 70])
        axes[0].set_ylabel("height")
    shown = show(fig, "Two lines rise.")
    wide, width, _ = texts(shown.svg)
    narrow, phone, height = texts(shown.narrow)
    assert width == 7 * 72 and phone == NARROW * 72 and height == 2 * 3 * 72
    assert wide["70"] == 1 and narrow["70"] == 2
    assert wide["height"] == 1 and narrow["height"] == 2
    page = shown._repr_html_()
    assert (
        page.count('role="img" aria-label="Two lines rise."') == 2 and page.count(" hidden>") == 1
    )


def test_a_row_of_small_panels_breaks_where_they_would_become_smaller():
    with figure(1, 4, size=(8.4, 2.5)) as (fig, axes):
        for ax in axes:
            ax.imshow(np.eye(2))
    _, width, height = texts(show(fig, "Four squares.").narrow)
    assert (width, height) == (NARROW * 72, 2 * 2.5 * 72)


def test_drawing_for_a_phone_leaves_the_figure_as_it_was():
    with figure(1, 2, size=(6, 3), sharey=True) as (fig, axes):
        axes[0].set_ylabel("height")
    before = svg_of(fig)
    show(fig, "Two empty panels.")
    assert svg_of(fig) == before


def test_a_figure_that_fits_a_phone_is_drawn_once():
    with figure(size=(NARROW, 3)) as (fig, _):
        pass
    assert show(fig, "Axes.").narrow is None
    assert "hidden" not in show(fig, "Axes.")._repr_html_()


def test_a_figure_without_panels_is_drawn_once():
    with figure(size=(7, 3)) as (fig, ax):
        ax.remove()
        fig.text(0.5, 0.5, "words")
    assert show(fig, "A word.").narrow is None


def test_a_figure_without_alt_text_is_refused():
    fig = draw()
    with pytest.raises(TypeError):
        show(fig)
    for alt in ("", "  \n"):
        with pytest.raises(ValueError, match="alt is empty"):
            show(fig, alt)
    with pytest.raises(TypeError, match="alt must be a sentence, got NoneType"):
        show(fig, None)
    with pytest.raises(TypeError, match="fig must be a matplotlib Figure, got ndarray"):
        show(np.ones(3), "A curve.")


def test_the_style_ends_with_the_figure():
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw()
    with pytest.raises(RuntimeError), figure():
        raise RuntimeError
    assert dict(matplotlib.rcParams) == before
