"""Torchrun that ends with the stage that started it, however that ends.

``python -m penstock.train.launch`` takes torchrun's own arguments.
"""

from __future__ import annotations

import sys

from torch.distributed.run import main

from penstock.processes import die_with_parent

if __name__ == "__main__":
    # Told to end, torchrun ends its processes; each of them listens for its end as well.
    die_with_parent()
    main(sys.argv[1:])
