"""What goes wrong on the way to Kaggle, for the tests of it: the kernel that is pushed, and how often it was.

The faults are switched on in the stand-in; client, verbs and HTTP are the real ones.
"""

KEY = "planted-4f1d9c0b7a"
KERNEL, DATASET = "alice/tiny-kernel", "alice/tiny-weights"
PAGE = f"https://www.kaggle.com/code/{KERNEL}"
WEIGHTS = {DATASET: {"model.bin": bytes(range(256)) * 400}}


def versions(server) -> int:
    """How many versions of the kernel Kaggle has."""
    return len(server.kernels.sessions.get(KERNEL, []))
