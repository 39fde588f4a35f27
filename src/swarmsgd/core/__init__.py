"""The pure middle: no clock, generator, thread, socket, log or environment in here.

Time, choices and messages come in as arguments; what shall be done goes out as values. Two drivers
use it: `swarmsgd.train` on the wall clock, and `swarmsgd.sim` on a virtual one.

* `node`, or `matching`: the machine of a node: `events` in, effects out. Also the length of bursts.
* `membership`: which peers can be asked, how long to wait for one, what happens when it dies.
* `endpoint`: machine, vectors and messages of one node tied together; drops a peer that lies.
* `replica`: the vectors x, c, p and when each changes; `arithmetic`: that of one exchange.
* `layout`: the places of a module's parameters in x; `segments`: where x lies, part by part.
* `messages`: their bytes; `wire_code`: what a wire code must do; `lattice`: the definition of ours.
"""
