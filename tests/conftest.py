"""For every test, before anything of torch is loaded.

torch's store asks the name service for the name of each address that connects to it, and serves
nobody meanwhile: one lost packet stalls every node of a test for 5 seconds. Tests talk to this
machine alone, so here nothing is asked. What torch then warns of, once a process, is not wanted.
"""

import os
import signal

from hypothesis import settings

os.environ["RES_OPTIONS"] = "attempts:0"
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"

# Whoever starts the tests may ignore these signals, as `nohup make test &` does, and what a process
# ignores its children ignore too. A handler is not passed on: so here and in all that the tests
# start signals do what they usually do. A hangup still does not end tests that were to outlive it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# A busy machine may take long over any example.
settings.register_profile("any load", deadline=None)
settings.load_profile("any load")
