"""`podium`, with a kill -9 of its own process planted before a given call of a given function.

python self_killing_podium.py MODULE:FUNCTION COUNT podium's arguments…
"""

import importlib
import os
import signal
import sys


def plant(target: str, count: int) -> None:
    module_name, path = target.split(":")
    owner = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), 0

    def counted(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, counted)


if __name__ == "__main__":
    if os.environ.get("RANK", "0") == "0":
        plant(sys.argv[1], int(sys.argv[2]))
    from pipelines.cli import main

    main(sys.argv[3:])
