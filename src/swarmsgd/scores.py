"""What a model is judged by: the scores there are, how each is written, which of two is better."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a score is shown."""

    title: str
    meaning: str = ""
    unit: str = "number"
    higher: bool = False
    """Whether more is better."""
    form: str = "{:.4g}"
    """How a value is written, for `str.format`."""
    log: bool = False
    """Whether plots show its logarithm."""
    step: float | None = None
    """Targets (as in "time to 89 %") are multiples of it; None: there are none."""

    def write(self, value: float | None) -> str:
        """As a person reads it; "-" for None."""
        return "-" if value is None else self.form.format(value)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(
        title="accuracy",
        meaning="right answers",
        unit="fraction",
        higher=True,
        form="{:.2%}",
        step=0.005,
    ),
    "bleu": Metric(
        title="BLEU", meaning="0 to 100, of a translation", higher=True, form="{:.2f}", step=0.5
    ),
    "bits_per_byte": Metric(
        title="bits per byte",
        meaning="loss in bits for each byte of a text",
        form="{:.4f}",
        step=0.01,
    ),
    "perplexity": Metric(title="perplexity", meaning="exp of the loss of a text", form="{:.2f}"),
    "excess": Metric(title="excess loss", meaning="loss above the optimum's", log=True),
    "distance": Metric(title="distance", meaning="norm of model - optimum", log=True),
    "loss": Metric(title="loss", meaning="mean over the samples", form="{:.4f}"),
}
"""Name -> how it is shown. A task may have others, see `Score.higher`."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good a model is on `samples` samples; `loss` is their mean.

    `accuracy` is a share in [0, 1], or None where the task has no such thing. `extra` holds what
    only this task knows, by name, e.g. ``{"bleu": 29.3}``; `higher` names those of which more is
    better, if they are not in `METRICS`. `about` says how it was taken where that must be known to
    compare scores, e.g. sacrebleu's signature.
    """

    loss: float
    samples: int
    accuracy: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    higher: Collection[str] = ()
    about: str = ""

    @property
    def judged_by(self) -> str:
        """Name of the one that a run is judged by: accuracy, or else the first of the task's own,
        or else loss.
        """
        return "accuracy" if self.accuracy is not None else next(iter(self.extra), "loss")

    def in_words(self) -> str:
        """`accuracy 98.33%, loss 0.0622`."""
        values = {"accuracy": self.accuracy, "loss": self.loss, **self.extra}
        known = {metric_of(name): value for name, value in values.items() if value is not None}
        return ", ".join(f"{metric.title} {metric.write(value)}" for metric, value in known.items())

    def fields(self) -> dict[str, object]:
        """As records hold it."""
        name = self.judged_by
        higher = metric_of(name, higher=name in self.higher).higher
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "scores": dict(self.extra),
            "score": name,
            "better": "higher" if higher else "lower",
            "about": self.about,
            "samples": self.samples,
        }


def metric_of(name: str, *, higher: bool = False) -> Metric:
    """Of the table, or one for a task's own score."""
    return METRICS.get(name) or Metric(title=name.replace("_", " "), higher=higher)


def value_of(name: str, fields: Mapping[str, object]) -> float | None:
    """The score `name` among the fields of a record or of `Score.fields`; None if not there."""
    scores = fields.get("scores")
    value = scores.get(name) if isinstance(scores, Mapping) else None
    value = fields.get(name) if value is None else value
    return float(value) if isinstance(value, int | float) else None
