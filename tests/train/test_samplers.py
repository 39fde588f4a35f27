"""Which samples nodes read: equal shares, honest counts, and what nodes that come and go cost."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
from torch.utils.data import DataLoader

from swarmsgd import NodeSampler, OpenSampler
from swarmsgd.errors import ConfigError


def loader_of(sampler, **options):
    options = {"batch_size": 4, **options}
    return DataLoader(range(sampler.size), sampler=sampler, collate_fn=list, **options)


def epoch(sampler, **options):
    return list(itertools.chain(*sampler.batches(loader_of(sampler, **options))))


def samplers(nodes, size=103, seed=5):
    return [NodeSampler(size, num_nodes=nodes, rank=rank, seed=seed) for rank in range(nodes)]


def test_nodes_have_equal_shares_of_one_permutation_and_none_twice():
    nodes = samplers(4)
    epochs = [[epoch(node) for node in nodes] for _ in range(3)]
    for shares in epochs:
        assert [len(share) for share in shares] == [25] * 4
        assert len(set(itertools.chain(*shares))) == 100
    assert epochs[0] != epochs[1] != epochs[2]
    assert {tuple(sorted(range(103) - share.keys())) for share in map(_all, epochs)} != {()}
    left_out = [set(range(103)) - set(itertools.chain(*shares)) for shares in epochs]
    assert not set.intersection(*left_out)


def _all(shares):
    return dict.fromkeys(itertools.chain(*shares))


def test_equal_seeds_give_equal_orders_and_others_give_others():
    assert [epoch(node) for node in samplers(3)] == [epoch(node) for node in samplers(3)]
    assert [epoch(node) for node in samplers(3)] != [epoch(node) for node in samplers(3, seed=6)]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sampler_goes_on_behind_what_the_loop_got_however_much_was_drawn(workers):
    options = {"num_workers": workers, "batch_size": 5}
    (whole, broken, resumed) = (samplers(2)[1] for _ in range(3))
    unbroken = [epoch(whole) for _ in range(2)]
    got = list(itertools.islice(broken.batches(loader_of(broken, **options)), 3))
    if workers:
        assert len(broken._drawn) > 5  # what workers hold is drawn, and does not count
    resumed.load_state_dict(broken.state_dict())
    assert len(resumed) == 51 - 15
    rest = epoch(resumed, **options)
    assert list(itertools.chain(*got, rest)) == unbroken[0]
    assert epoch(resumed, **options) == unbroken[1]


def test_a_loop_that_was_left_goes_on_where_it_was():
    sampler, whole = samplers(2)[0], epoch(samplers(2)[0])
    loader = loader_of(sampler)
    first = next(iter(sampler.batches(loader)))
    assert first + epoch(sampler) == whole


def test_a_state_saved_at_the_end_of_an_epoch_goes_on_with_the_next():
    sampler, other = samplers(2)[0], samplers(2)[0]
    state = [sampler.state_dict() for _ in sampler.batches(loader_of(sampler))][-1]
    other.load_state_dict(state)
    assert epoch(other) == []
    assert (other.epoch, epoch(other)) == (1, epoch(sampler))


def test_a_loop_around_the_count_is_noticed():
    sampler = samplers(1)[0]
    for _ in loader_of(sampler):
        break
    with pytest.raises(ConfigError, match=r"nobody counted: loop over sampler\.batches\(loader\)"):
        sampler.state_dict()
    with pytest.raises(ConfigError, match="this loader has another sampler"):
        next(sampler.batches(loader_of(samplers(1)[0])))
    with pytest.raises(ConfigError, match="batch_sampler"):
        loader = DataLoader(range(103), batch_sampler=[[1, 2]])
        next(sampler.batches(loader))


def test_bad_samplers_are_refused():
    with pytest.raises(ConfigError, match="2 samples for 3 nodes"):
        NodeSampler(2, num_nodes=3, rank=0)
    with pytest.raises(ConfigError, match="rank is 3, wanted 0 to 2"):
        NodeSampler(9, num_nodes=3, rank=3)
    with pytest.raises(ConfigError, match="size is 8, in the checkpoint it is 9"):
        NodeSampler(8).load_state_dict(NodeSampler(9).state_dict())
    with pytest.raises(ConfigError, match="seed is 1, in the checkpoint it is 0"):
        NodeSampler(9, seed=1).load_state_dict(NodeSampler(9).state_dict())
    with pytest.raises(ConfigError, match="wanted node 3 itself among them"):
        OpenSampler(9, node=3, nodes=[1, 2])


def test_who_a_node_is_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    sampler = NodeSampler(9)
    assert (sampler.rank, sampler.num_nodes, len(sampler)) == (2, 3, 3)


@pytest.mark.parametrize(("old", "new"), [(4, 6), (8, 3)])
def test_other_nodes_share_what_is_left_of_the_epoch(old, new):
    before = samplers(old, size=1000)
    got = [list(itertools.islice(s.batches(loader_of(s)), 7)) for s in before]
    seen = set(itertools.chain(*itertools.chain(*got)))
    after = samplers(new, size=1000)
    for sampler in after:
        sampler.load_state_dict(before[0].state_dict())
    shares = [epoch(sampler) for sampler in after]
    rest = list(itertools.chain(*shares))
    assert len({len(share) for share in shares}) == 1
    assert len(set(rest)) == len(rest) and not seen & set(rest)
    assert 1000 - len(seen) - len(rest) < new
    assert len(epoch(after[0])) == 1000 // new


# Nodes that come and go.

SIZE = 6000


@dataclass
class Life:
    """One node: how fast it is, and what it saw in which epoch."""

    sampler: OpenSampler
    speed: float
    seen: list[tuple[int, int]] = field(default_factory=list)
    done: float = 0.0

    def __post_init__(self):
        self.batches = self._forever()

    def _forever(self):
        while True:
            yield from self.sampler.batches(loader_of(self.sampler))

    def train(self):
        self.done += self.speed
        while self.done >= 1:
            self.done -= 1
            batch = next(self.batches)
            self.seen += [(self.sampler.epoch, sample) for sample in batch]

    @property
    def place(self):
        return self.sampler.epoch * SIZE + self.sampler._next


def open_nodes(speeds):
    everyone = range(len(speeds))
    return {
        node: Life(OpenSampler(SIZE, node=node, nodes=everyone, seed=3), speed)
        for node, speed in zip(everyone, speeds, strict=True)
    }


def missed_and_repeated(lives, epochs):
    """For each epoch how many samples nobody saw, and how many were seen more than once."""
    found = []
    for number in range(epochs):
        seen = Counter(s for life in lives for e, s in life.seen if e == number)
        found.append((SIZE - len(seen), sum(seen.values()) - len(seen)))
    return found


def test_nodes_that_agree_on_who_lives_see_everything_once():
    nodes = open_nodes([1.0, 1.0, 0.7, 0.4])
    while any(life.sampler.epoch < 2 for life in nodes.values()):
        for life in nodes.values():
            if life.sampler.epoch < 2:
                life.train()
    assert missed_and_repeated(nodes.values(), 2) == [(0, 0), (0, 0)]
    shares = Counter(life.sampler.node for life in nodes.values() for e, _ in life.seen if e == 0)
    assert all(abs(share - SIZE / 4) < 5 * (SIZE / 4) ** 0.5 for share in shares.values())


class Open:
    """Nodes that hear of deaths and arrivals late, each at a time of its own."""

    def __init__(self, speeds):
        self.nodes = open_nodes(speeds)
        self.ended: list[Life] = []
        self.tick = 0
        self.news: list[tuple[int, int, set[int], set[int]]] = []
        self.stretches: list[float] = []
        """For each change: samples of the one concerned, in the places between the last node when
        it happened and the first one when all had heard of it."""

    def train(self, ticks):
        for tick in range(self.tick, self.tick + ticks):
            self.tick = tick
            for life in self.nodes.values():
                if life.sampler.epoch < 4:
                    life.train()
            for due, node, gone, new in self.news:
                if due == self.tick:
                    sampler = self.nodes[node].sampler
                    sampler.nodes = {*sampler.nodes, *new} - gone

    def tell(self, gone, new):
        """Node 0 hears of it now, the second one 4 ticks later, and so on."""
        begin = min(life.place for life in self.nodes.values())
        self.ended += [self.nodes.pop(node) for node in gone]
        hearers = sorted(self.nodes.keys() - new)
        self.news += [(self.tick + 1 + 4 * n, node, gone, new) for n, node in enumerate(hearers)]
        self.train(4 * len(hearers) + 2)
        end = max(life.place for life in self.nodes.values())
        self.stretches.append((end - begin) / len({*self.nodes, *gone}))

    def arrive(self, node):
        """With the state of the node that is furthest behind: rather twice than never."""
        last = min(self.nodes.values(), key=lambda life: life.place).sampler
        sampler = OpenSampler(SIZE, node=node, nodes={*last.nodes, node}, seed=3)
        sampler.load_state_dict(last.state_dict())
        self.nodes[node] = Life(sampler, 1.0)
        self.tell(set(), {node})


def test_two_deaths_and_an_arrival_cost_only_what_lies_between_the_nodes():
    swarm = Open([1.0, 1.0, 0.98, 0.95, 0.9])
    swarm.train(60)
    swarm.tell({1}, set())
    swarm.train(50)
    swarm.tell({3}, set())
    swarm.train(600)
    swarm.arrive(9)
    swarm.train(2000)
    assert all(life.sampler.epoch == 4 for life in swarm.nodes.values())
    counts = missed_and_repeated([*swarm.ended, *swarm.nodes.values()], 4)
    deaths, arrival = sum(swarm.stretches[:2]), swarm.stretches[2]
    print(f"(never, twice) by epoch: {counts}; stretches {deaths:.0f} and {arrival:.0f}")
    slack = 3 * deaths**0.5  # shares are equal on average
    assert 0 < sum(counts[0]) < deaths + slack  # without any nothing would be measured
    assert 0 < sum(counts[1]) < arrival + slack
    assert counts[2:] == [(0, 0), (0, 0)]
