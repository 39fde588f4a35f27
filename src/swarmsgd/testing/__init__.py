"""What a transport must do, as checks that anybody's transport can be put to.

::

    @pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
    def test_my_transport(check):
        check(make_cluster)

or, all at once, `check_transport(make_cluster)`. The checks raise AssertionError; they use no test
framework and no fixed sleeps. `MemoryNetwork` is a network inside one process,
with faults at will, to test a node on.
"""

from swarmsgd.graphs import Edge
from swarmsgd.testing.inbox import (
    Cluster,
    Inbox,
    MakeCluster,
    digest,
    send,
    threads_and_descriptors,
)
from swarmsgd.testing.memory import MemoryNetwork
from swarmsgd.testing.transport_checks import (
    LARGE,
    TRANSPORT_CHECKS,
    check_death,
    check_transport,
)

__all__ = [
    "LARGE",
    "TRANSPORT_CHECKS",
    "Cluster",
    "Edge",
    "Inbox",
    "MakeCluster",
    "MemoryNetwork",
    "check_death",
    "check_transport",
    "digest",
    "send",
    "threads_and_descriptors",
]
