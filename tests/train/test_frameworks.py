"""The examples under other frameworks' training loops, each on two nodes: one averaging alone, the
same mean everywhere, and the framework's own checkpoints whole.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from nodes import run

from swarmsgd.errors import ConfigError
from swarmsgd.integrations import CLUSTER_SIZES, check_alone, hide_place
from swarmsgd.train.launch.variables import OWN
from swarmsgd.train.meet.place import Place

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

BEGIN = """
import copy, hashlib, runpy
from swarmsgd.tasks.vision import torchvision_models
torchvision_models.names()  # declares operators that a torchvision of another build lacks
OUT = os.environ["OUT"]
def alike(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[n]) for n, v in one.items())
def keep_own(callback):
    "What a node's own model was when its training ended: all that is in the last checkpoint."
    ends = callback.on_train_end
    def kept(self, *given, **more):
        model = more.get("model", given[-1])
        callback.own = copy.deepcopy(model.state_dict())
        return ends(self, *given, **more)
    callback.on_train_end = kept
def example(*arguments):
    sys.argv = ["example", "--out", OUT, *arguments]
    return runpy.run_path(os.environ["EXAMPLE"])
def tell(model, swarm, **more):
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.numpy().tobytes())
    say(digest=digest.hexdigest(), group=torch.distributed.is_initialized(),
        steps=swarm.stats()["steps"], exchanges=swarm.stats()["started"], of=swarm.mean_of, **more)
"""

HUGGING_FACE = """
from swarmsgd.integrations import hugging_face
keep_own(hugging_face.SwarmCallback)
made = example("--steps", "30")
trainer = made["trainer"]
folder = f"{OUT}/node-{RANK}/checkpoint-30"
own = made["BertForSequenceClassification"].from_pretrained(folder).state_dict()
trainer.args.load_best_model_at_end = True  # would undo what the swarm brought
try:
    trainer.train()
    raise SystemExit("not refused")
except swarmsgd.errors.ConfigError as error:
    assert str(error).startswith("load_best_model_at_end brings back one of this node's own"), error
tell(trainer.model, made["swarm"].swarm, wrapped=trainer.model_wrapped is not trainer.model,
    checkpoint=alike(own, hugging_face.SwarmCallback.own))
"""

LIGHTNING = """
from swarmsgd.integrations import hide_place
hide_place()
from swarmsgd.integrations import lightning
keep_own(lightning.SwarmCallback)
made = example("--epochs", "1")
trainer, model = made["trainer"], made["model"]
path = trainer.checkpoint_callback.best_model_path
own = made["Digits"].load_from_checkpoint(path).state_dict()
assert path.startswith(f"{OUT}/node-{RANK}/")
tell(model, trainer.callbacks[0].swarm, wrapped=trainer.strategy.model is not model,
    checkpoint=alike(own, lightning.SwarmCallback.own))
"""

ACCELERATE = """
made = example("--epochs", "1")
model, final = made["model"], made["final"]
with torch.no_grad():
    for parameter in model.parameters():
        parameter.zero_()
made["accelerator"].load_state(f"{OUT}/node-{RANK}")
tell(model, made["swarm"], wrapped=type(model) is not nn.Sequential,
    checkpoint=alike(model.state_dict(), final))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "name", "body", "steps"),
    [
        ("transformers", "hugging_face", HUGGING_FACE, 30),
        ("pytorch_lightning", "lightning_digits", LIGHTNING, 24),
        ("accelerate", "accelerate_digits", ACCELERATE, 24),
    ],
    ids=["transformers", "lightning", "accelerate"],
)
def test_under_a_framework_nodes_average_once_and_agree(
    framework: str, name: str, body: str, steps: int, tmp_path: Path
):
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    path = EXAMPLES / f"{name}.py"
    said = run(BEGIN + body, 2, OUT=str(tmp_path), EXAMPLE=str(path), TQDM_DISABLE="1")
    for node in said:
        assert node["digest"] == said[0]["digest"] and node["of"] == [0, 1]
        assert node["steps"] == steps and node["exchanges"] > 0
        assert node["checkpoint"] and not node["wrapped"] and not node["group"]


def test_a_trainer_of_several_processes_is_refused():
    check_alone(1)
    with pytest.raises(
        ConfigError,
        match=r"works with 2 processes .* second time\. Call swarmsgd\.integrations\.hide_place",
    ):
        check_alone(2)


SLURM = {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "gpu[07-09]"}
STANDARD = {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "gpu07", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("starter", [STANDARD, SLURM, {}], ids=["standard", "slurm", "none"])
def test_the_place_is_hidden_and_handed_over(
    starter: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    environment = {"HOME": "/"} | starter
    monkeypatch.setattr(os, "environ", environment)
    before = Place.find(environment)
    assert hide_place() == ((1, 3) if starter else (0, 1))
    assert hide_place() == ((1, 3) if starter else (0, 1))
    assert Place.find(environment) == before and environment["HOME"] == "/"
    assert not {*OWN, *CLUSTER_SIZES} & set(environment)
