"""Where the project's own files lie, whatever folder a test stands in."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parent
