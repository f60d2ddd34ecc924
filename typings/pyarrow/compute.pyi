# The compute functions are generated when the module is imported; no checker can see them.
from typing import Any

def __getattr__(name: str) -> Any: ...
