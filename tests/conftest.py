"""For every test, before anything of torch is loaded.

torch's store asks the name service for the name of each address that connects to it, and serves
nobody meanwhile: one lost packet stalls every node of a test for 5 seconds. Tests talk to this
machine alone, so here nothing is asked. What torch then warns of, once a process, is not wanted.
"""

import os

os.environ["RES_OPTIONS"] = "attempts:0"
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
