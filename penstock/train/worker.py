"""One of the processes of a distributed training; torchrun starts them.

``python -m torch.distributed.run --standalone --nproc-per-node N -m penstock.train.worker FOLDER``
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from penstock.processes import die_with_parent
from penstock.train import distributed
from penstock.train.batches import Ranks
from penstock.train.proved import prove


def main(folder: Path) -> None:
    """Take part in the training that a folder describes; the first process writes its result."""
    die_with_parent()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        ranks = Ranks(rank=dist.get_rank(), world=dist.get_world_size())
        asked = distributed.asked(folder, ranks)
        proved = prove(
            asked.task,
            asked.examples,
            asked.validation,
            asked.settings,
            device="cuda" if cuda else "cpu",
            ranks=ranks,
            checkpoint=asked.checkpoint,
        )
        if ranks.rank == 0:
            distributed.answer(folder, proved)
        dist.barrier()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
