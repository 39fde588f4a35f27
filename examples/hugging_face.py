"""A small BERT learns whether a word comes twice, under transformers.Trainer.

swarmsgd launch -n 2 examples/hugging_face.py
"""

import argparse

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from swarmsgd.integrations import hide_place
from swarmsgd.integrations.hugging_face import SwarmCallback

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="runs/hugging_face")
parser.add_argument("--steps", type=int, default=400)
given = parser.parse_args()
rank, num_nodes = hide_place()  # before TrainingArguments look for RANK


def sentences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Six words out of twenty; the label is whether the first word comes again."""
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(20, (count, 6), generator=draw)
    labels = (words[:, 1:] == words[:, :1]).any(1).long()
    return [{"input_ids": w, "labels": y} for w, y in zip(words, labels, strict=True)]


config = BertConfig(
    vocab_size=20,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=6,
)
arguments = TrainingArguments(
    output_dir=f"{given.out}/node-{rank}",  # each node keeps checkpoints of its own
    max_steps=given.steps,
    per_device_train_batch_size=32,
    learning_rate=2e-3,
    report_to=[],
    disable_tqdm=True,
    use_cpu=True,
)
swarm = SwarmCallback(graph="complete", local_steps=4)
trainer = Trainer(
    model=BertForSequenceClassification(config),
    args=arguments,
    train_dataset=sentences(4000, seed=1)[rank::num_nodes],  # each node reads its own part
    eval_dataset=sentences(500, seed=0),
    compute_metrics=lambda p: {"accuracy": np.mean(np.argmax(p.predictions, -1) == p.label_ids)},
    callbacks=[swarm],
)
trainer.train()
print(f"node {rank}: accuracy {trainer.evaluate()['eval_accuracy']:.4f} of the mean model")
