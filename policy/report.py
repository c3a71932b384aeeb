from typing import Any


def render(found: Any) -> str:
    return ""
