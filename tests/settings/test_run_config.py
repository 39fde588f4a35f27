"""A run is made from flat options and kept in a file; every name has one owner."""

import doctest
from collections import Counter
from dataclasses import fields

import pytest

from swarmsgd import checks
from swarmsgd.errors import ConfigError
from swarmsgd.settings import run as run_settings
from swarmsgd.settings.algorithms import ALGORITHMS, REAL_ALGORITHMS
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.settings.options import options_of
from swarmsgd.settings.run import RunConfig
from swarmsgd.settings.swarm import SwarmSettings
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.makers import MAKERS as SIMULATED_MAKERS
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import TASKS, SyntheticOptions, VisionOptions
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.makers import NODE_MAKERS as REAL_MAKERS


def test_every_option_goes_to_the_part_that_has_it():
    made = SimConfig.of(
        task="digits", nodes=8, graph="ring", lr=1, latency_ms=2, seed=3, model="mlp", evals=2
    )
    assert made.task == VisionOptions(dataset="digits", model="mlp", batch_size=16, seed=3)
    assert (made.nodes, made.swarm.graph, made.optimizer.lr) == (8, "ring", 1.0)
    assert (made.swarm.seed, made.world.latency_ms, made.evals) == (3, 2.0, 2)


def test_a_recipe_is_other_defaults_each_of_which_may_be_given_beside_it():
    made = SimConfig.of(task="vision", recipe="sgd", lr=0.2, clip_norm="none")
    assert (made.swarm.bits, made.task.batch_size) == (4, 16)
    assert made.optimizer == OptimizerSettings(lr=0.2, nesterov=True, schedule="wsd")
    usual = SimConfig.of(task="vision", lr=0.02)
    assert (usual.swarm.bits, usual.task.batch_size) == (4, 16)
    assert usual.swarm.exchange_state == ()  # at the bytes of the model alone
    assert usual.optimizer == OptimizerSettings(
        optimizer="schedulefree-adamw", lr=0.02, schedule="wsd", clip_norm=1.0, least_share=0.02
    )
    plain = SimConfig.of(task="vision", recipe="plain")
    assert (plain.swarm.bits, plain.optimizer) == (8, OptimizerSettings())
    assert plain.task == VisionOptions()
    assert plain.title() != SimConfig.of(task="vision").title()


def test_what_is_given_wins_over_a_recipe_that_does_not_go_with_it():
    adam = SimConfig.of(task="vision", optimizer="adamw", lr=0.01)
    assert adam.optimizer == OptimizerSettings(optimizer="adamw", lr=0.01)
    assert not SimConfig.of(task="vision", recipe="sgd", momentum=0).optimizer.nesterov
    assert SimConfig.of(task="vision", optimizer="sgd").optimizer == OptimizerSettings()
    assert SimConfig.of(task=VisionOptions(batch_size=8)).task.batch_size == 8


def test_a_setting_that_the_recipes_optimizer_has_not_is_refused_even_at_its_default():
    with pytest.raises(ConfigError, match=r"momentum is given, but the recipe's optimizer is sch"):
        SimConfig.of(task="vision", momentum=0.9)
    assert SimConfig.of(task="vision", momentum=0.9, optimizer="sgd").optimizer.momentum == 0.9


def test_a_recipe_that_there_is_not_is_refused():
    with pytest.raises(
        ConfigError, match=r"recipe is 'plane', wanted one of default, sgd, plain; did"
    ):
        SimConfig.of(task="vision", recipe="plane")


def test_a_part_may_be_given_whole_and_options_change_it():
    made = SimConfig.of(
        task=SyntheticOptions(dimension=8), world=World(latency_ms=3), noise=0.5, step_jitter=1
    )
    assert made.task == SyntheticOptions(dimension=8, noise=0.5)
    assert made.world == World(latency_ms=3, step_jitter=1)


def test_the_seed_of_a_run_is_that_of_its_parts():
    made = RunConfig.of(task="synthetic", seed=5, swarm=SwarmSettings(seed=1))
    assert made.swarm.seed == made.task.seed == 5


@pytest.mark.parametrize("cls", [SimConfig, TrainConfig])
@pytest.mark.parametrize("task", TASKS)
def test_no_two_parts_have_an_option_of_one_name(cls: type[RunConfig], task: str):
    counts = Counter(name for part in cls.options(task).values() for name in part)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("cls", [SimConfig, TrainConfig])
def test_every_option_has_a_help_and_a_value_that_a_text_can_hold(cls: type[RunConfig]):
    for task in TASKS:
        for part in cls.options(task).values():
            for option in part.values():
                assert option.help and option.kinds, option
                if option.kinds not in ((bool,), (tuple,)):
                    assert option.read_text(option.shown_default) == option.default or (
                        option.name == "local_steps"
                    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"nods": 3}, "there is no option 'nods'; did you mean \"nodes\""),
        ({"join_timeout_s": 3}, "there is no option 'join_timeout_s'"),
        ({"dataset": "minst"}, 'did you mean "fashion-mnist"'),
        ({"model": "resnet"}, 'did you mean "resnet'),
        ({"partition": "dirchlet:1"}, 'did you mean "dirichlet"'),
        ({"graph": "rong"}, 'did you mean "ring"'),
        ({"mode": "bloking"}, 'did you mean "blocking"'),
        ({"algorithm": "alreduce"}, 'did you mean "allreduce"'),
        ({"schedule": "cosin"}, 'did you mean "cosine"'),
        ({"optimizer": "adamv"}, 'did you mean "adam'),
        ({"exchange_state": ("momentum_bufer",)}, 'did you mean "momentum_buffer"'),
        ({"exchange_state": ("exp_avg",)}, "but of sgd there is momentum_buffer"),
        (
            {"exchange_state": ("momentum_buffer",), "momentum": 0.0},
            "there is none: its momentum is 0",
        ),
        (
            {"exchange_state": ("momentum_buffer:9",)},
            "momentum_buffer in exchange_state is 9, wanted one of none, 3",
        ),
        ({"nodes": "four"}, "nodes is 'four', wanted a whole number"),
        ({"nodes": 0}, "nodes is 0, wanted a whole number of at least 1"),
        ({"rotation": "yes"}, "rotation is 'yes', wanted true or false or"),
    ],
)
def test_a_mistake_is_answered_with_what_was_meant(given, told):
    with pytest.raises(ConfigError) as raised:
        RunConfig.of(**{"task": "vision", "recipe": "sgd"} | given)
    assert told in str(raised.value)


def test_a_graph_that_is_no_text_is_not_for_a_run_in_a_folder():
    from swarmsgd import graphs

    with pytest.raises(ConfigError, match="graph is a Graph, wanted its name"):
        RunConfig(task=SyntheticOptions(), swarm=SwarmSettings(graph=graphs.ring(4)))


def test_a_real_run_has_the_real_algorithms_only():
    with pytest.raises(ConfigError, match="wanted one of swarm, allreduce"):
        TrainConfig.of(task="digits", algorithm="local-sgd")


def test_the_drivers_make_the_algorithms_of_the_table_and_no_others():
    assert list(SIMULATED_MAKERS) == list(ALGORITHMS)
    assert list(REAL_MAKERS) == list(REAL_ALGORITHMS)


def test_the_swarm_uses_all_settings_that_a_run_has_and_others_some():
    offered = {name for name, option in options_of(SwarmSettings).items() if option.offered}
    assert set(ALGORITHMS["swarm"].uses) == offered
    names = {field.name for field in fields(SwarmSettings)}
    assert all(set(entry.uses) <= names for entry in ALGORITHMS.values())


@pytest.mark.parametrize("module", [checks, run_settings])
def test_docstring_examples_run(module):
    assert doctest.testmod(module).failed == 0


def test_another_optimizer_has_its_own_usual_rate_unless_one_is_given():
    for recipe in ("default", "plain"):
        for name, rate in (("adamw", 0.003), ("adam", 0.003), ("sgd", 0.1)):
            if recipe == "plain" or name != "sgd":
                config = RunConfig.of(task="digits", optimizer=name, recipe=recipe)
                assert config.optimizer.lr == rate and config.doubts() == []
    assert RunConfig.of(task="digits", optimizer="adamw", lr=0.01).optimizer.lr == 0.01


def test_a_mean_that_is_divided_by_what_stays_on_the_node_is_doubted():
    adamw = {"task": "digits", "optimizer": "adamw", "exchange_state": ("exp_avg:8",)}
    (told,) = RunConfig.of(**adamw).doubts()
    assert told.startswith("warning: exchange_state averages 'exp_avg', but what it is divided by")
    assert RunConfig.of(**adamw, eps=1e-4).doubts() == []
    assert RunConfig.of(**adamw, algorithm="allreduce").doubts() == []
    momentum = RunConfig.of(task="digits", recipe="plain", exchange_state=("momentum_buffer",))
    assert momentum.doubts() == []


def test_a_setting_that_the_algorithm_has_not_is_unused_but_not_where_a_recipe_names_it():
    for algorithm, unused in (
        ("swarm", []),
        ("allreduce", ["bits", "graph", "local_steps"]),
        ("local-sgd", ["bits", "graph"]),
    ):
        given = {"algorithm": algorithm, "bits": 4, "graph": "ring", "local_steps": 2, "lr": 0.1}
        config = SimConfig.of(task="digits", **given)
        assert config.unused(given) == unused
        assert config.unused({"seed", "nodes", "epochs"}) == []
