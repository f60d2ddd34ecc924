"""Register: can anyone later tell what this is and why it was let through?"""

from penstock.register.step import run

__all__ = ["run"]
