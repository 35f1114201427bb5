"""Where the repository and the published book are: said in one place, or not at all.

The repository is ``ONEBIT_REPOSITORY_URL`` in the environment, or ``repository: url:`` in
``_config.yml``; the book is ``ONEBIT_SITE_URL``, or ``html: baseurl:``. Whatever needs an address
that nobody gave is left out of the pages.
"""

import os
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

REPOSITORY = "ONEBIT_REPOSITORY_URL"
SITE = "ONEBIT_SITE_URL"


def checked_repository(url: str) -> str:
    """Return a repository's address without slash or ``.git`` at its end; "" stays "".

    Raises
    ------
    ConfigError
        If it is no web address of an owner and a repository.
    """
    plain = url.strip().rstrip("/").removesuffix(".git")
    if plain and not re.fullmatch(r"https?://[\w.:-]+(/[\w.~-]+){2,}", plain):
        raise ConfigError(
            f"{REPOSITORY} (or repository: url: in _config.yml) must be the web address of a "
            f"repository, such as https://github.com/owner/name, or empty; got {url!r}"
        )
    return plain


def checked_site(url: str) -> str:
    """Return the book's address with a slash at its end; "" stays "".

    Raises
    ------
    ConfigError
        If it is no web address.
    """
    plain = url.strip().rstrip("/")
    if plain and not re.fullmatch(r"https?://[\w.:-]+(/[\w.~-]+)*", plain):
        raise ConfigError(
            f"{SITE} (or html: baseurl: in _config.yml) must be the web address where the book is "
            f"published, such as https://owner.github.io/name, or empty; got {url!r}"
        )
    return plain + "/" if plain else ""


def settle(app: Sphinx, config: Config) -> None:
    """Take the addresses from the environment or the configuration."""
    # The theme would make buttons of its own from this option.
    configured = config.html_theme_options.pop("repository_url", "") or ""
    config.onebit_repository = checked_repository(os.environ.get(REPOSITORY) or configured)
    config.html_baseurl = checked_site(os.environ.get(SITE) or config.html_baseurl or "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the addresses with Sphinx."""
    app.add_config_value("onebit_repository", "", "html", str)
    app.connect("config-inited", settle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
