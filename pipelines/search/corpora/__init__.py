"""Corpora to search in. Their text is read from installed packages when needed and written into an index only."""
