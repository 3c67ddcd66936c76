"""The checkout in miniature."""

from miniature import template as template
from miniature import workspace as workspace
