"""Which image each component runs in: one per dependency group, named by the environment.

``PENSTOCK_IMAGE_DATA`` and its siblings pin them by digest when a pipeline is compiled for a
cluster. kfp.local runs components as processes and warns of any image whose name lacks "python".
"""

import functools
import os

from kfp import dsl

VERSION = "0.1.0"


def _image(group: str) -> str:
    named = os.environ.get(f"PENSTOCK_IMAGE_{group.upper()}")
    return named or f"penstock-python-{group}:{VERSION}"


def component(group: str):
    """Return the decorator of a component in a group's image; nothing is installed at run time."""
    return functools.partial(
        dsl.component, base_image=_image(group), packages_to_install=[], install_kfp_package=False
    )


DATA, TRAIN, ENGINE, CONTROL = (component(g) for g in ("data", "train", "engine", "control"))
