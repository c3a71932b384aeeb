"""`python -m tests.compiled`: what a decision needs goes into numba's cache, once for all processes of the tests."""

from server import products, reload
from server.settings import Settings


def main() -> None:
    """As a server does before it listens."""
    for product in products.load(Settings()).values():
        reload.rehearse(product)


if __name__ == "__main__":
    main()
