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


def format_bytes(num_bytes: float | None, digits: int = 2) -> str:
    """1_234_567_890 -> "1.2 GB" with two digits at least, in powers of ten as disks and Kaggle count; "" for None."""
    if num_bytes is None:
        return ""
    size, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    decimals = 0 if unit == "B" else max(0, digits - len(str(int(size))))
    return f"{size:.{decimals}f} {unit}"


def format_closely(num_bytes: float) -> str:
    """With four digits, for amounts that are held against each other."""
    return format_bytes(num_bytes, digits=4)
