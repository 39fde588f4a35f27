"""The pure middle: no clock, generator, thread, socket, log or environment in here.

Time, choices and messages come in as arguments; what shall be done goes out as values. Two drivers
use it: `swarmsgd.train` on the wall clock, and a simulator on a virtual one.
"""
