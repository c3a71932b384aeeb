"""What decides on a product: its schema, the bundle trained for that schema, and its policy. Loaded as one, or not."""

from dataclasses import dataclass

from features import schema as schemas
from features.schema import Schema
from models.bundle import Bundle
from models.scorer import Scorer
from policy.decide import Policy
from server.settings import Settings


@dataclass(frozen=True)
class Product:
    """One product, ready to decide."""

    name: str
    schema: Schema
    bundle_version: str
    scorer: Scorer
    policy: Policy


def load(settings: Settings) -> dict[str, Product]:
    """Products by name: one for each product of each schema that has a bundle.

    Raises SchemaError, BundleError or PolicyError naming the file; nothing is served from a half-valid set.
    """
    products = {}
    for path in sorted(settings.schemas.glob("*.yaml")):
        schema = schemas.load(path)
        folder = settings.bundles / schema.name
        if not folder.is_dir():
            continue
        bundle = Bundle.load(folder, schema)
        scorer = Scorer(bundle)
        for name in schema.products:
            policy = Policy.load(settings.policies / f"{name}.json", schema)
            products[name] = Product(name, schema, bundle.version, scorer, policy)
    if not products:
        raise schemas.SchemaError(f"{settings.schemas}: no schema has a bundle in {settings.bundles}")
    return products
