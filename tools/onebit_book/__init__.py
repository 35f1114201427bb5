"""Sphinx extensions of the book, one idea a file; ``_config.yml`` lists them."""
