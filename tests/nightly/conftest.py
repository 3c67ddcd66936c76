"""The checkout in miniature of tests/recipes."""

from recipes.conftest import template as template
