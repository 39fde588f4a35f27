"""A text cut into what is trained on and what is scored, and into windows.

The documents follow each other in one row of bytes, which are the tokens: what is trained on is the
beginning of each document, the end of each is held out. A window has `context` bytes to predict and
before them one more to begin from; windows lie end to end, so that every byte is predicted once.
One that reaches over the end of its document belongs to the document it begins in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmsgd.errors import DataError
from swarmsgd.tasks.text.documents import Document

TEST_SHARE = 1 / 20
TEST_BYTES = 1 << 16
"""Held out of each document is this share from its end, less where that is more than this in
all: scores within a percent need no more, and are taken often.
"""
GROUPS = 10
BYTE_VALUES = 256
"""Tokens that there are."""
_LINE_END = 10

Text8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Training and test bytes, ``[N]`` and ``[M + 1]``.

    `test` begins with a line end that is there to predict the first byte from. `starts` says where
    in `train` each document begins.
    """

    train: Text8
    test: Text8
    starts: NDArray[np.int64]

    def windows(self, context: int) -> int:
        """How many windows there are to train on."""
        return (len(self.train) - 1) // context

    def documents(self, context: int) -> NDArray[np.int64]:
        """The number of the document of each training window, ``[windows]``."""
        begins = np.arange(self.windows(context)) * context
        return np.searchsorted(self.starts, begins, side="right") - 1

    def groups(self, context: int) -> NDArray[np.int64]:
        """The number of the group of each training window, ``[windows]``: neighbouring documents
        are put into at most 10 groups of about equal size, none of them divided.
        """
        ends = np.append(self.starts[1:], len(self.train))
        group = GROUPS * (self.starts + ends) // (2 * len(self.train))
        return group[self.documents(context)]

    def batch(self, windows: NDArray[np.int64], context: int) -> Tensor:
        """These training windows as int64, ``[B, context + 1]``."""
        places = windows[:, None] * context + np.arange(context + 1)
        return torch.from_numpy(self.train[places].astype(np.int64))

    def test_batches(self, context: int, size: int) -> Iterator[Tensor]:
        """The test text in windows, int64 ``[B, context + 1]``, B at most `size`; the last one has
        what is left, and may be shorter.
        """
        whole = (len(self.test) - 1) // context
        for first in range(0, whole, size):
            begins = np.arange(first, min(first + size, whole))[:, None] * context
            places = begins + np.arange(context + 1)
            yield torch.from_numpy(self.test[places].astype(np.int64))
        rest = self.test[whole * context :]
        if len(rest) > 1:
            yield torch.from_numpy(rest.astype(np.int64))[None]


def cut(documents: Sequence[Document]) -> Text:
    """Texts as bytes. Raises DataError if too little is there to hold anything out."""
    total = sum(len(document.content) for document in documents)
    share = min(TEST_SHARE, TEST_BYTES / total)
    begins = [
        _character_from(d.content, len(d.content) - int(share * len(d.content))) for d in documents
    ]
    train = [d.content[:begin] for d, begin in zip(documents, begins, strict=True)]
    test = [d.content[begin:] for d, begin in zip(documents, begins, strict=True)]
    if not any(map(len, test)):
        raise DataError(
            f"the text has {total:,} bytes in {len(documents):,} documents, too few to hold out "
            f"a twentieth of each for the test; take a longer one"
        )
    return Text(
        # A single file may be one that stays on the disk.
        train=train[0] if len(train) == 1 else np.concatenate(train),
        test=np.concatenate([np.array([_LINE_END], np.uint8), *test]),
        starts=np.cumsum([0, *map(len, train)])[:-1],
    )


def _character_from(content: NDArray[np.uint8], place: int) -> int:
    """The first place from `place` on where a character begins: UTF-8's are 1 to 4 bytes long,
    and all but the first are of the form 10xxxxxx.
    """
    while place < len(content) and content[place] & 0xC0 == 0x80:
        place += 1
    return place
