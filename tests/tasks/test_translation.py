"""The translation task, on a made-up language pair and on files that cannot be used."""

from __future__ import annotations

import gzip
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_language

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.seeds import stream
from swarmsgd.tasks import find_task
from swarmsgd.tasks.text.batches import like_length_batches
from swarmsgd.tasks.text.pieces import BEGIN, END, PAD, processor
from swarmsgd.tasks.text.translation import TranslationOptions, TranslationTask, length_clusters


@pytest.fixture
def toy(bare_machine: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a task on the made-up language; the cache is empty."""
    assert not bare_machine.exists()
    return toy_language.write(tmp_path)


def make(options: dict[str, Any], nodes: int = 2, notify=lambda line: None, **more: Any):
    return TranslationTask(TranslationOptions(**options | more), nodes, notify)


def first(task: TranslationTask, node: int = 0, count: int = 5) -> list:
    return list(itertools.islice(task.batches(node), count))


def texts(task: TranslationTask, rows: torch.Tensor) -> list[str]:
    return processor(task.vocabulary).decode(rows.tolist())


def test_a_batch_is_pairs_between_begin_and_end(toy: dict[str, Any]):
    task = make(toy)
    source, target, seed = first(task)[0]
    assert source.dtype == target.dtype == seed.dtype == torch.int64
    assert (len(source), len(target), seed.shape) == (8, 8, ())
    assert (target[:, 0] == BEGIN).all() and ((target == END).sum(1) == 1).all()
    assert ((source == END).sum(1) == 1).all() and not (source == BEGIN).any()
    known = dict(toy_language.sentences(200, 0))
    for a, b in zip(texts(task, source), texts(task, target), strict=True):
        assert known[a] == b


def test_each_pair_is_seen_once_a_pass_in_a_new_order(toy: dict[str, Any]):
    task = make(toy, nodes=1)
    passes = [
        [
            pair
            for source, target, _ in batches
            for pair in zip(texts(task, source), texts(task, target), strict=True)
        ]
        for seen in [first(task, count=50)]
        for batches in (seen[:25], seen[25:])
    ]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(toy_language.sentences(200, 0))
    assert passes[0] != passes[1]


def test_a_batch_is_of_like_length_and_a_rest_is_not_lost():
    lengths = np.random.default_rng(0).integers(1, 40, size=(2, 1003))
    batches = like_length_batches(np.arange(1003), tuple(lengths), 10, stream("order", 0, 0))
    of_three = list(itertools.islice(batches, 300))
    assert all(np.ptp(lengths[0][batch]) <= 2 for batch in of_three[:100])
    counts = np.bincount(np.concatenate(of_three), minlength=1003)
    assert set(counts) <= {2, 3} and (counts == 2).sum() == 9


def test_a_shard_smaller_than_a_batch_fills_one(toy: dict[str, Any]):
    ((source, *_),) = first(make(toy, nodes=50), count=1)
    assert len(source) == 8


def test_dropout_is_a_function_of_the_batch(toy: dict[str, Any]):
    task = make(toy, dropout=0.3)
    model, (batch, other) = task.make_model(0), first(task, count=2)
    losses = [task.loss(model, b).item() for b in (batch, batch, (*batch[:2], other[2]))]
    assert losses[0] == losses[1] != losses[2]
    assert task.train_score(model) == task.train_score(model)


def test_the_loss_is_a_mean_over_pieces_and_padding_counts_nothing(toy: dict[str, Any]):
    task = make(toy, smoothing=0.0)
    model, (source, target, seed) = task.make_model(0), first(task)[0]
    short = target.clone()
    short[0] = PAD
    short[0, :3] = torch.tensor([BEGIN, target[0, 1], END])
    wide = torch.nn.functional.pad(source, (0, 3), value=PAD)
    loss = task.loss(model, (source, short, seed))
    torch.testing.assert_close(task.loss(model, (wide, short, seed)), loss)
    rows = [
        task.loss(model, (source[i : i + 1], short[i : i + 1, : n + 1], seed)) * n
        for i, n in enumerate((short[:, 1:] != PAD).sum(1).tolist())
    ]
    torch.testing.assert_close(sum(rows) / (short[:, 1:] != PAD).sum(), loss)


def test_the_score_has_the_loss_without_smoothing_bleu_and_how_it_was_taken(toy: dict[str, Any]):
    task, smooth = make(toy, smoothing=0.0), make(toy, smoothing=0.3)
    model = task.make_model(0)
    score = task.evaluate(model)
    assert score == smooth.evaluate(model)
    assert score.samples == 30
    assert score.extra["perplexity"] == pytest.approx(np.exp(score.loss))
    assert "tok:13a" in score.about and "version" in score.about
    train = task.train_score(model)
    assert train.samples == 200 and set(train.extra) == {"perplexity"}


def test_a_score_does_not_depend_on_the_size_of_its_batches(
    toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    task = make(toy)
    model = task.make_model(0)
    whole = task.evaluate(model)
    monkeypatch.setattr("swarmsgd.tasks.text.translation._SCORE_BATCH", 7)
    assert task.evaluate(model).loss == pytest.approx(whole.loss, rel=1e-5)


@pytest.mark.slow
def test_the_made_up_language_is_learnt(toy: dict[str, Any], tmp_path: Path):
    toy_language.write(tmp_path, train=2000)
    task = make(toy, nodes=1, vocabulary=100, batch_size=16, beam=3)
    model = task.make_model(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    for batch in first(task, count=300):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    score = task.evaluate(model)
    assert score.loss < 0.7  # a piece a word, of 11 words; without the source 2.3
    assert score.extra["bleu"] > 35


def test_the_vocabulary_that_is_kept_reads_what_the_model_writes(toy: dict[str, Any]):
    task = make(toy)
    assert set(task.files()) == {"pieces.model"}
    kept = processor(task.files()["pieces.model"])
    assert kept.get_piece_size() == 60
    assert kept.decode(kept.encode("rot hund")) == "rot hund"


def test_a_corpus_is_encoded_once_and_anew_when_a_file_changed(
    toy: dict[str, Any], lines: list[str]
):
    made = make(toy, notify=lines.append)
    assert len(lines) == 1 and "learning 60 pieces from 200 pairs" in lines[0]
    again = make(toy, nodes=3, notify=lines.append)
    assert len(lines) == 1
    assert again.files() == made.files()
    toy_language.write(toy["train_src"].parent, train=150)
    make(toy, notify=lines.append)
    assert len(lines) == 2


def test_gzipped_files_are_read_as_plain_ones(toy: dict[str, Any]):
    plain = first(make(toy))
    for name, path in list(toy.items()):
        if isinstance(path, Path):
            toy[name] = path.with_name(f"{path.name}.gz")
            toy[name].write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    for a, b in zip(plain, first(make(toy)), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_who_is_faster_wins_and_nothing_is_left_over(
    toy: dict[str, Any], bare_machine: Path, monkeypatch: pytest.MonkeyPatch
):
    made = make(toy).files()
    (folder,) = (bare_machine / "text").iterdir()
    monkeypatch.setattr("pathlib.Path.exists", lambda path: path != folder)
    monkeypatch.setattr("swarmsgd.tasks.lookup.Path.exists", lambda path: True)
    assert make(toy).files() == made
    assert list((bare_machine / "text").iterdir()) == [folder]


def test_skew_gives_nodes_sentences_of_other_lengths(toy: dict[str, Any]):
    def means(partition: str) -> np.ndarray:
        task = make(toy, nodes=4, partition=partition)
        return task.train.source.lengths[task.shards_NK].mean(axis=1)

    assert np.ptp(means("iid")) < 3
    assert np.ptp(means("dirichlet:0.1")) > 6


def test_length_clusters_are_deciles():
    lengths = np.random.default_rng(0).permutation(1000)
    clusters = length_clusters(lengths)
    assert (np.bincount(clusters) == 100).all()
    assert lengths[clusters == 0].max() == 99 and lengths[clusters == 9].min() == 900


def test_only_so_many_pairs_of_so_many_words_are_used(toy: dict[str, Any], lines: list[str]):
    task = make(toy, max_words=3, pairs=20, vocabulary=45, notify=lines.append)
    kept = [p for p in toy_language.sentences(200, 0) if len(p[0].split()) <= 3]
    assert len(task.train.source) == 20
    assert processor(task.vocabulary).decode(task.train.target[19].tolist()) == kept[19][1]
    assert all(len(text.split()) <= 3 for text in task.references)
    assert "of more than 3 words" in lines[1]


def test_pairs_that_are_too_long_are_left_out_of_training_and_cut_in_a_test(
    toy: dict[str, Any], lines: list[str]
):
    task = make(toy, max_pieces=10, notify=lines.append)
    assert max(task.train.source.lengths.max(), task.train.target.lengths.max()) <= 10
    assert f"{len(task.train.source)} pairs to train on; left out: " in lines[1]
    assert f"{200 - len(task.train.source)} of more than 10 pieces" in lines[1]
    assert len(task.references) == len(task.scored.source) == 30
    assert task.scored.source.lengths.max() == 10
    assert "test: " in "".join(lines[2:]) and "longer than 10 pieces" in lines[2]


def edited(path: Path, line: int, text: bytes) -> None:
    content = path.read_bytes().split(b"\n")
    content[line - 1] = text
    path.write_bytes(b"\n".join(content))


def test_an_empty_line_is_left_out_of_training_and_said(toy: dict[str, Any], lines: list[str]):
    edited(toy["train_tgt"], 7, b"  ")
    task = make(toy, notify=lines.append)
    assert len(task.train.source) == 199
    assert "199 pairs to train on; left out: 1 with an empty line" in lines[1]


def refused(options: dict[str, Any], error: type[Exception], text: str, cache: Path) -> None:
    with pytest.raises(error, match=text):
        make(options)
    assert not cache.exists() or not list((cache / "text").iterdir())


def test_files_that_cannot_be_used_are_refused_in_a_line_and_nothing_is_written(
    toy: dict[str, Any], bare_machine: Path
):
    def check(text: str, error: type[Exception] = DataError, **options: Any) -> None:
        refused(toy | options, error, text, bare_machine)

    def copy(name: str) -> Path:
        path = toy[name].with_name(f"copy-of-{toy[name].name}")
        path.write_bytes(toy[name].read_bytes())
        return path

    longer = copy("train_tgt")
    with longer.open("a") as file:
        file.write("eins zu viel\nund noch eins\n")
    check(
        r"train\.src has 200 lines and .*train\.tgt has 202 lines, .* first extra line is line 201 "
        r"of copy-of-train\.tgt: 'eins zu viel'",
        train_tgt=longer,
    )
    latin = copy("train_src")
    edited(latin, 12, "ein grüner".encode("latin-1"))
    check(r"line 12 of .*train\.src is not UTF-8 \(byte 7 of it is 0xfc\)", train_src=latin)
    hole = copy("test_src")
    edited(hole, 3, b"")
    check(r"line 3 of .*test\.src is empty", test_src=hole)
    check(r"there is no file .*nowhere: check the path", train_src=Path("nowhere"))
    cut = copy("train_src").with_suffix(".gz")
    cut.write_bytes(gzip.compress(toy["train_src"].read_bytes())[:-20])
    check(r"\.gz cannot be read", train_src=cut)
    check("vocabulary is 9,999, but the training text has only", ConfigError, vocabulary=9999)
    check("vocabulary is 9, but the characters of the training text", ConfigError, vocabulary=9)
    check(
        "all 200 pairs to train on have more than 1 pieces: raise max_pieces",
        max_pieces=1,
        vocabulary=45,
    )
    nothing = toy["train_src"].with_name("nothing")
    nothing.write_text("")
    check("there is no pair to train on", train_src=nothing, train_tgt=nothing)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"train_src": Path("a")}, "train_src is given without train_tgt"),
        ({"valid_tgt": Path("a")}, "valid_tgt is given without valid_src"),
        ({"train_src": Path("a"), "train_tgt": Path("b")}, "test_src and test_tgt must be given"),
        ({"corpus": "multi30"}, 'did you mean "multi30k"'),
        ({"model": "tyni"}, 'did you mean "tiny"'),
        ({"scored": "train"}, "scored is 'train', wanted one of test, valid"),
        ({"vocabulary": 70_000}, "vocabulary is 70000, wanted a whole number from 8 to 65536"),
        ({"beam": 0}, "beam is 0"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"max_pieces": 0}, "max_pieces is 0"),
        ({"partition": "dirichlet:0"}, "alpha above 0"),
    ],
)
def test_options_are_checked_where_they_are_made(options: dict[str, Any], text: str):
    with pytest.raises(ConfigError, match=text):
        TranslationOptions(**options)


def test_validation_needs_its_files(toy: dict[str, Any]):
    own = {name: value for name, value in toy.items() if not name.startswith("valid")}
    make(own)
    with pytest.raises(ConfigError, match="valid_src and valid_tgt must be given"):
        make(own, scored="valid")


def test_the_scored_split_is_the_one_that_is_asked_for(toy: dict[str, Any]):
    assert make(toy, scored="valid").references == [t for _, t in toy_language.sentences(30, 1)]
    assert make(toy).references == [t for _, t in toy_language.sentences(30, 2)]


def test_where_multi30k_is_not_the_error_says_where_to_put_it(bare_machine: Path):
    with pytest.raises(DataError, match=r"put train\.en\.gz, .* --data or SWARMSGD_DATA"):
        make({})
    assert not bare_machine.exists()


@pytest.mark.parametrize("package", ["sentencepiece", "sacrebleu"])
def test_a_missing_package_is_told_with_what_installs_it(
    package: str, toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        DataError, match=rf"{package}; install it by: pip install 'swarmsgd\[text\]'"
    ):
        make(toy)


def test_the_name_of_a_corpus_is_short_for_translation_on_it():
    assert find_task("multi30k") == ("translation", {"corpus": "multi30k"})
