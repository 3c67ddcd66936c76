"""The checkout in miniature."""

from miniature import template as template
