"""Laws of batches: the same examples and changes, whoever makes them ready and whenever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.train.batches import Batches, Examples, Ranks, seed_of


def numbered(n: int) -> Examples:
    """Return examples that can be told apart."""
    return Examples(inputs_n=np.arange(n, dtype=np.float32).reshape(-1, 1), labels_n=np.arange(n))


def noise(inputs: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Change a batch by chance."""
    return inputs + torch.rand(inputs.shape, generator=generator)


def made(n: int, epoch: int, *, after: int = 0, **settings: object) -> list[tuple[object, ...]]:
    """Return an epoch's batches as plain values."""
    given_ = {"size": 4, "seed": 7, "device": "cpu", "augment": noise, **settings}
    batches = Batches(examples=numbered(n), **given_)  # pyright: ignore[reportArgumentType]
    return [(x.tolist(), y.tolist()) for x, y in batches.epoch(epoch, after=after)]


@given(n=st.integers(1, 40), epoch=st.integers(1, 5), prefetch=st.integers(1, 6))
def test_making_batches_ahead_changes_nothing(n: int, epoch: int, prefetch: int):
    """Order, examples, changes: as without."""
    assert made(n, epoch, prefetch=prefetch) == made(n, epoch)


@given(n=st.integers(4, 40), epoch=st.integers(1, 5), prefetch=st.integers(0, 3), data=st.data())
def test_an_epoch_that_is_gone_on_with_is_the_rest_of_the_whole(
    n: int, epoch: int, prefetch: int, data: st.DataObject
):
    """What came before decides nothing of a later batch."""
    whole = made(n, epoch)
    after = data.draw(st.integers(0, len(whole)))

    assert made(n, epoch, after=after, prefetch=prefetch) == whole[after:]


@given(n=st.integers(8, 40), epoch=st.integers(1, 5), world=st.sampled_from([2, 4]))
def test_processes_share_every_batch_between_them(n: int, epoch: int, world: int):
    """Together they have what one alone would, and no example twice."""
    alone = [sorted(y) for _, y in made(n, epoch, augment=None)]
    parts = [
        made(n, epoch, augment=None, ranks=Ranks(rank=rank, world=world)) for rank in range(world)
    ]

    together = [sorted(n for _, y in batch for n in y) for batch in zip(*parts, strict=True)]
    assert together == alone


def test_two_processes_change_their_parts_differently():
    """The same noise in both would be less noise than one process has."""
    parts = [made(8, 1, ranks=Ranks(rank=rank, world=2)) for rank in (0, 1)]
    changes = [np.array(x) - np.array(y)[:, None] for part in parts for x, y in part[:1]]

    assert not np.allclose(changes[0], changes[1])


@given(st.integers(0, 2**40), st.integers(0, 5), st.integers(0, 1000), st.integers(0, 1000))
def test_every_use_of_a_seed_has_numbers_of_its_own(seed: int, use: int, epoch: int, step: int):
    """And the same place has the same one."""
    here = seed_of(seed, use, epoch, step)

    assert here == seed_of(seed, use, epoch, step)
    assert 0 <= here < 2**63
    assert (
        len({here, seed_of(seed, use + 1, epoch, step), seed_of(seed, use, epoch, step + 1)}) == 3
    )


def test_a_batch_that_cannot_be_shared_is_refused():
    """Fewer examples than a batch would give the processes unequal parts."""
    with pytest.raises(ValueError, match="3 examples for batches of 4"):
        Batches(examples=numbered(3), size=4, seed=1, device="cpu", ranks=Ranks(rank=0, world=2))
