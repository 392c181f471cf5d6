"""pinocchio is a compiled module without type information: pyright takes every name of it as it comes."""

from typing import Any

def __getattr__(name: str) -> Any: ...
