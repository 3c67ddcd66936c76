"""Amounts of memory as people write them."""

import re

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(text: str) -> int:
    """`12GiB`, `800 MiB` or `1.5GB` as bytes. Raises ValueError with what would work."""
    found = re.fullmatch(r"([0-9.]+) ?([A-Za-z]+)", text.strip())
    try:
        size = float(found[1]) * UNITS[found[2]] if found else 0.0
    except (ValueError, KeyError):
        size = 0.0
    if not 1 <= size < 2**63:
        raise ValueError(f"{text!r} is no amount of memory; needs a number above 0 and one of {', '.join(UNITS)}")
    return round(size)


def format_bytes(size: float) -> str:
    """`12.00 GiB`; in MiB below one GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
