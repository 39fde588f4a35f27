"""The language task on texts that the tests write."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.tasks import LanguageOptions, LanguageTask
from swarmsgd.tasks.text import windows
from swarmsgd.tasks.text.documents import Document
from swarmsgd.tasks.text.windows import Text, cut

WORD_BITS = 1.0


def speech(words: int, seed: int) -> str:
    """A text of 12 words of 2 to 6 letters; each is followed by one of two, which a fair coin
    decides: so a word has 1 bit.
    """
    rng = np.random.default_rng(seed)
    letters = [chr(ord("a") + i) for i in range(26)]
    lexicon = ["".join(rng.choice(letters, rng.integers(2, 7))) for _ in range(12)]
    following = [rng.choice(12, 2, replace=False) for _ in lexicon]
    spoken, word = [], 0
    for coin in rng.integers(0, 2, words):
        word = following[word][coin]
        spoken.append(lexicon[word])
    return " ".join(spoken) + "\n"


@pytest.fixture
def four_speeches(tmp_path: Path) -> Path:
    """A folder of four documents, each in a language of its own."""
    folder = tmp_path / "speeches"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text(speech(4000, i))
    return folder


def task_on(path: Path, nodes: int = 1, **options: Any) -> LanguageTask:
    return LanguageTask(LanguageOptions(text=path, **({"model": "tiny"} | options)), nodes)


def document(text: str | bytes, name: str = "a") -> Document:
    content = text.encode() if isinstance(text, str) else text
    return Document(name, np.frombuffer(content, np.uint8))


def text_of(*texts: str) -> Text:
    return cut([document(text) for text in texts])


# What is held out.


def test_the_last_twentieth_of_each_document_is_held_out():
    text = text_of("a" * 190 + "b" * 10, "c" * 76 + "d" * 4)
    assert text.train.tobytes() == b"a" * 190 + b"c" * 76
    assert text.test.tobytes() == b"\n" + b"b" * 10 + b"d" * 4
    assert text.starts.tolist() == [0, 190]


def test_of_a_large_text_less_is_held_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(windows, "TEST_BYTES", 4)
    text = text_of("a" * 198 + "b" * 2, "c" * 198 + "d" * 2)
    assert text.test.tobytes() == b"\nbbdd"
    assert text.train.tobytes() == b"a" * 198 + b"c" * 198


def test_no_character_is_cut():
    text = text_of("€" * 20)
    assert text.train.tobytes().decode() + text.test.tobytes().decode()[1:] == "€" * 20
    assert text.test.tobytes().decode() == "\n€"


def test_a_single_large_file_is_not_copied(tmp_path: Path):
    (tmp_path / "a.txt").write_text("ab" * 500)
    content = np.memmap(tmp_path / "a.txt", dtype=np.uint8, mode="r")
    assert np.shares_memory(cut([Document("a", content)]).train, content)


def test_a_text_too_short_to_hold_anything_out_is_refused():
    with pytest.raises(DataError, match="the text has 19 bytes in 1 documents, too few"):
        text_of("a" * 19)


# Windows.


def test_windows_predict_every_token_but_the_first_once():
    text = text_of("".join(chr(33 + i) for i in range(90)))
    batch = text.batch(np.arange(text.windows(8)), 8)
    assert batch.shape == (10, 9)
    assert batch.dtype == torch.int64
    assert batch[:, 1:].flatten().tolist() == text.train[1:81].tolist()
    assert batch[1:, 0].tolist() == batch[:-1, -1].tolist()


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("context", [1, 4, 7, 10, 50])
def test_the_test_text_is_predicted_whole_whatever_the_batch(context: int, size: int):
    text = text_of("".join(chr(33 + i % 90) for i in range(200)))
    batches = list(text.test_batches(context, size))
    assert all(len(batch) <= size for batch in batches)
    predicted = [token for batch in batches for token in batch[:, 1:].flatten().tolist()]
    assert predicted == text.test[1:].tolist()


def test_a_window_belongs_to_the_document_it_begins_in():
    text = text_of("a" * 200, "b" * 40, "c" * 100)  # 190, 38 and 95 to train on
    documents = text.documents(10)
    first = text.batch(np.arange(len(documents)), 10)[:, 0]
    assert [bytes([byte]) for byte in first] == [b"abc"[i : i + 1] for i in documents]
    assert np.bincount(documents).tolist() == [19, 4, 9]


def test_groups_are_at_most_ten_of_neighbouring_documents_and_about_equal():
    text = text_of(*["x" * size for size in [400] * 30 + [100] * 60 + [2000]])
    documents, groups = text.documents(10), text.groups(10)
    assert np.all(np.diff(groups) >= 0)
    assert len(np.unique(groups)) == 10
    assert len(np.unique(np.stack([documents, groups]), axis=1).T) == 91  # none is divided
    shares = np.bincount(groups) / len(groups)
    assert shares.min() > 0.05
    assert shares.max() < 0.16


# Shares of nodes.


@pytest.fixture
def many_speeches(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for i, words in enumerate(np.random.default_rng(0).integers(100, 900, 40)):
        (folder / f"{i:02}.txt").write_text(speech(int(words), i))
    return folder


@pytest.mark.parametrize("partition", ["iid", "grouped", "dirichlet:0.1"])
def test_shares_are_equal_and_no_window_is_in_two(many_speeches: Path, partition: str):
    task = task_on(many_speeches, 5, context=16, partition=partition)
    total = task.text.windows(16)
    assert task.shards_NK.shape == (5, total // 5)
    assert len(np.unique(task.shards_NK)) == task.shards_NK.size == task.samples_per_epoch


def test_grouped_no_document_is_on_two_nodes_but_where_a_share_ends(many_speeches: Path):
    task = task_on(many_speeches, 5, context=16, partition="grouped")
    of_window = task.text.documents(16)
    owners = [set() for _ in range(40)]
    for node, shard in enumerate(task.shards_NK):
        for of in of_window[shard]:
            owners[of].add(node)
    assert sum(len(nodes) == 1 for nodes in owners) >= 36
    divided = sorted(tuple(sorted(nodes)) for nodes in owners if len(nodes) > 1)
    assert set(divided) <= {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert len(divided) == len(set(divided))


def test_dirichlet_skews_the_groups(many_speeches: Path):
    def largest(partition: str) -> float:
        task = task_on(many_speeches, 5, context=16, partition=partition)
        groups = task.text.groups(16)[task.shards_NK]
        return float(np.mean([np.bincount(row).max() / len(row) for row in groups]))

    assert largest("iid") < 0.2
    assert largest("dirichlet:100") < 0.25
    assert largest("dirichlet:0.05") > 0.4


def test_every_window_is_seen_once_a_pass(four_speeches: Path):
    task = task_on(four_speeches, 2, context=16, batch_size=1)
    shard = task.shards_NK[1]
    seen = torch.cat([windows for windows, _ in islice(task.batches(1), len(shard))])
    wanted = task.text.batch(shard, 16)
    assert sorted(seen.tolist()) == sorted(wanted.tolist())
    assert seen.tolist() != wanted.tolist()


def test_every_batch_has_a_dropout_of_its_own(four_speeches: Path):
    task = task_on(four_speeches, dropout=0.5)
    model = task.make_model(0)
    (batch, seed), (_, other) = islice(task.batches(0), 2)
    assert seed != other
    loss = task.loss(model, (batch, seed))
    assert loss == task.loss(model, (batch, seed)) != task.loss(model, (batch, other))
    model.eval()
    assert task.loss(model, (batch, seed)) == task.loss(model, (batch, other))


# The model and its score.


def test_a_model_that_diverged_has_a_score(four_speeches: Path):
    task = task_on(four_speeches)
    model = task.make_model(0)
    model.embedder.weight.data.mul_(1e4)
    score = task.evaluate(model)
    assert score.loss > 1000
    assert math.isfinite(score.extra["perplexity"])


def test_no_token_sees_what_comes_after_it(four_speeches: Path):
    model = task_on(four_speeches).make_model(0)
    tokens = torch.randint(256, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12:] = 65
    before, after = model.hidden(tokens), model.hidden(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-2)


def test_the_score_is_the_mean_over_all_tokens_in_three_units(four_speeches: Path):
    task = task_on(four_speeches, context=100)
    model = task.make_model(0)
    score = task.evaluate(model)
    test = torch.from_numpy(task.text.test.astype(np.int64))
    nats = torch.zeros(())
    for begin in range(0, len(test) - 1, 100):
        tokens = test[begin : begin + 101]
        logits = model.hidden(tokens[None, :-1])[0] @ model.embedder.weight.T
        nats += torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="sum").detach()
    assert score.samples == len(test) - 1
    assert score.loss == pytest.approx(nats.item() / score.samples, rel=1e-4)
    assert score.extra["bits_per_byte"] == pytest.approx(score.loss / math.log(2))
    assert score.extra["perplexity"] == pytest.approx(math.exp(score.loss))


OPTIMIZER = OptimizerSettings(
    optimizer="adamw", lr=5e-3, beta2=0.99, warmup=0.1, clip_norm=1.0, weight_decay=0.1
)


def unigram_bits(task: LanguageTask) -> float:
    """Entropy of a byte that is drawn as often as it is there."""
    shares = np.bincount(task.text.test[1:]) / (len(task.text.test) - 1)
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())


@pytest.mark.slow
def test_a_gpt_learns_a_language(tmp_path: Path):
    """All but what the coins leave open, and not that: then it would see what it predicts."""
    (tmp_path / "a.txt").write_text(spoken := speech(20_000, 0))
    task = task_on(tmp_path / "a.txt", context=32, batch_size=16)
    model = task.make_model(0)
    optimizer, steps = OPTIMIZER.make(model.parameters()), 200
    for step, batch in enumerate(islice(task.batches(0), steps)):
        for group in optimizer.param_groups:
            group["lr"] = OPTIMIZER.rate(step / steps)
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        OPTIMIZER.clip(model.parameters())
        optimizer.step()
    bits = task.evaluate(model).extra["bits_per_byte"]
    open_bits = WORD_BITS * 20_000 / len(spoken)
    assert open_bits * 0.9 < bits < open_bits + 0.2
    assert unigram_bits(task) > 5 * bits


@pytest.mark.slow
def test_a_swarm_learns_four_languages_each_node_hearing_one(four_speeches: Path):
    """Without exchanges the mean model is at 2.9 bits a byte; with them it comes to 0.7."""
    config = SimConfig.of(
        task=LanguageOptions(text=four_speeches, model="tiny", context=16, partition="grouped"),
        nodes=4, batch_size=16, local_steps=4, epochs=2, evals=1, score_nodes=4,
        optimizer=OPTIMIZER,
    )  # fmt: skip
    result = simulate(config)
    assert result.summary["mean_score"] < 1.4


# Bad input.


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"corpus": "wbe"},
            "corpus is 'wbe', wanted one of web, python-docs; did you mean \"web\"",
        ),
        ({"model": "smal"}, 'did you mean "small"'),
        ({"partition": "group"}, 'did you mean "grouped"'),
        ({"context": 0}, "context is 0, wanted a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is 0, wanted a whole number"),
        ({"dropout": 1.0}, "dropout is 1.0, wanted a number of at least 0 and below 1"),
        ({"seed": -1}, "seed is -1, wanted a whole number"),
        ({"corpus": "python-docs", "text": Path("a")}, "leave one of them out"),
    ],
)
def test_options_are_checked_where_they_are_made(options: dict[str, Any], error: str):
    with pytest.raises(ConfigError, match=error):
        LanguageOptions(**options)


def test_a_text_without_a_window_for_every_node_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x" * 400)
    assert task_on(tmp_path / "a.txt", 3, context=126).samples_per_epoch == 3
    with pytest.raises(ConfigError, match="380 bytes to train on, which is 3 windows of context"):
        task_on(tmp_path / "a.txt", 4, context=126)
    with pytest.raises(ConfigError, match=r"0 windows .* a smaller context"):
        task_on(tmp_path / "a.txt", 1, context=1000)


@pytest.mark.parametrize("partition", ["grouped", "dirichlet:1"])
def test_a_single_document_cannot_be_split_by_documents(tmp_path: Path, partition: str):
    (tmp_path / "a.txt").write_text("x" * 1000)
    with pytest.raises(ConfigError, match="the text is a single document; take partition iid"):
        task_on(tmp_path / "a.txt", 2, context=16, partition=partition)
