"""A stand-in for Kaggle that speaks its real protocol on loopback, so that the unmodified client is what is tested.

It does what shapes a client's life: kernels really run (through the rehearsal's sandbox), datasets take their time,
uploads break off and are resumed, sessions and submissions are limited, answers are hidden, and anything can fail on
purpose. `connect` points a process at it without touching a file of the client's.
"""

from kaggle_standin.competitions import StandInCompetition
from kaggle_standin.connecting import connect, proxy_environment, sign_in
from kaggle_standin.kernels import Script
from kaggle_standin.protocol import Cut, Extra, Refusal, Reply, Spoil, Stop
from kaggle_standin.server import KaggleStandIn

__all__ = [
    "Cut",
    "Extra",
    "KaggleStandIn",
    "Refusal",
    "Reply",
    "Script",
    "Spoil",
    "StandInCompetition",
    "Stop",
    "connect",
    "proxy_environment",
    "sign_in",
]
