"""Mathematics set while the book is built, as MathML, which browsers draw and screen readers read.

A page then needs no script for its formulas: they stand there at once, in print and without
JavaScript too. A formula that cannot be set is a warning with its place, which `-W` makes an error.
"""

import re
from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

_converter = LatexToMathML(fancy_error=False)
_logger = logging.getLogger(__name__)


def mathml(tex: str, *, block: bool) -> str:
    r"""Return a formula in LaTeX as a ``<math>`` element, on a line of its own if ``block``.

    Raises
    ------
    math_core.LatexError
        If the formula holds an unknown command or does not close what it opens.

    Examples
    --------
    >>> mathml(r"2^n", block=False)
    '<math><msup><mn>2</mn><mi>n</mi></msup></math>'
    """
    return _converter.convert_with_local_state(tex, displaystyle=block)


def _set(node: nodes.Element, *, block: bool) -> str:
    try:
        return mathml(node.astext(), block=block)
    except LatexError as error:
        _logger.warning("this formula cannot be set: %s: %s", node.astext(), error, location=node)
        return ""


def _visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    start = translator.starttag(node, "span", "", CLASS="math notranslate nohighlight")
    translator.body.append(f"{start}{_set(node, block=False)}</span>")
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    translator.body.append(f'<div class="formula">{_set(node, block=True)}</div>')
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def _keep_punctuation(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Hold every formula and the punctuation that adjoins it on one line, as in running text."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        kept = nodes.inline(classes=["with-punctuation"])
        i = parent.index(formula)
        before, after = parent[max(i - 1, 0)], parent[min(i + 1, len(parent) - 1)]
        if isinstance(before, nodes.Text) and (found := re.search(r"[^\w\s]+$", before)):
            parent.replace(before, nodes.Text(before[: found.start()]))
            kept += nodes.Text(found[0])
        parent.replace(formula, kept)
        kept += formula
        if isinstance(after, nodes.Text) and (found := re.match(r"[^\w\s]+", after)):
            parent.replace(after, nodes.Text(after[found.end() :]))
            kept += nodes.Text(found[0])
        if len(kept) == 1:
            parent.replace(kept, formula)


def setup(app: Sphinx) -> dict[str, Any]:
    """Offer Sphinx the renderer that ``html_math_renderer: mathml`` chooses."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.connect("doctree-resolved", _keep_punctuation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
