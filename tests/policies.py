"""A small policy of the card payments' product with its cases, as a risk officer would copy and edit it."""

import csv
import io
import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from features import schema as schemas
from features.schema import Schema
from policy.cases import CASES
from policy.decide import POLICY
from tests.conftest import ROOT

PRODUCT = "card_transaction"
SHIPPED = ROOT / "policy/products" / PRODUCT


@cache
def cards() -> Schema:
    """The schema of the product."""
    return schemas.load(ROOT / "features/schemas/sffsd.yaml")


def policy_folder(folder: Path, decline: str = "0.5") -> Path:
    """The product's policy in a new folder, declining from that fraud probability on; its cases come out so too."""
    folder.mkdir(parents=True)
    document = json.loads((SHIPPED / POLICY).read_text(encoding="utf-8"))
    rules = table_of(document)["rules"]
    rules[0]["in_fraud_probability"], rules[1]["in_fraud_probability"] = f">= {decline}", f"[0.2..{decline})"
    (folder / POLICY).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    shutil.copyfile(SHIPPED / CASES, folder / CASES)
    change_case(folder, "fraud-decline", {"fraud_probability": decline})
    return folder


def table_of(document: Any, name: str = "fraud") -> Any:
    """A table's content in a policy file."""
    return next(node["content"] for node in document["nodes"] if node["name"] == name)


def change_case(folder: Path, name: str, cells: Mapping[str, str]) -> None:
    """Other cells in a case of a policy's folder."""
    rows = list(csv.DictReader((folder / CASES).read_text(encoding="utf-8").splitlines()))
    next(row for row in rows if row["case"] == name).update(cells)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / CASES).write_text(text.getvalue(), encoding="utf-8")
