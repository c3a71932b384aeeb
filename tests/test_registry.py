"""Roles of bundles on disk: what is refused leaves them as they were, and no change is lost."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bench.promote import run, variant
from features import schema as schemas
from features.schema import Schema, SchemaError
from models import registry
from models.__main__ import app
from models.bundle import MANIFEST, Bundle, BundleError
from models.registry import LOCK, ROLES, Roles
from tests.conftest import ROOT
from tests.snapshots import made_for, trained_bundle

MakeBundle = Callable[[float], Path]


@pytest.fixture
def make(consumer: Schema, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """A function that writes a bundle of the consumer schema, another version for each number."""
    trained = trained_bundle(consumer, tmp_path_factory)
    return lambda shift: variant(trained, tmp_path / "made" / str(shift), shift)


@pytest.fixture
def bundles(consumer: Schema, tmp_path: Path, make: MakeBundle) -> Path:
    """A registry with the champion `make(0.0)`."""
    registry.promote(tmp_path / "bundles", make(0.0), consumer)
    return tmp_path / "bundles"


def version(bundle: Path) -> str:
    return Bundle.open(bundle).version


def test_roles_move_and_come_back(consumer: Schema, bundles: Path, make: MakeBundle) -> None:
    folder, (a, b, c) = bundles / "consumer", (version(make(shift)) for shift in (0.0, 0.1, 0.2))
    assert registry.read(folder) == Roles(champion=a)
    registry.challenge(bundles, make(0.1), consumer)
    registry.challenge(bundles, make(0.2), consumer)
    assert registry.read(folder) == Roles(champion=a, challengers=(b, c))
    assert registry.promote(bundles, make(0.1), consumer) == (b, Roles(champion=a, challengers=(b, c)))
    assert registry.read(folder) == Roles(champion=b, previous=(a,), challengers=(c,))
    registry.promote(bundles, make(0.1), consumer)  # again: nothing changes
    assert registry.read(folder) == Roles(champion=b, previous=(a,), challengers=(c,))
    registry.challenge(bundles, make(0.0), consumer)
    assert registry.rollback(bundles, "consumer") == Roles(champion=a, challengers=(c,)) == registry.read(folder)
    assert registry.retire(bundles, "consumer", c) == Roles(champion=a) == registry.read(folder)
    assert sorted(f.name for f in folder.iterdir()) == sorted(
        [a, b, c, ROLES, LOCK]
    )  # every version stays, nothing else
    for name in (a, b, c):
        assert Bundle.load(folder / name, consumer).version == name


def test_what_cannot_be_refuses(consumer: Schema, bundles: Path, make: MakeBundle) -> None:
    a = version(make(0.0))
    with pytest.raises(BundleError, match=rf"consumer/{ROLES}: no champion before {a}"):
        registry.rollback(bundles, "consumer")
    with pytest.raises(BundleError, match=f"{a} is the champion"):
        registry.challenge(bundles, make(0.0), consumer)
    with pytest.raises(BundleError, match=f"{a} is no challenger"):
        registry.retire(bundles, "consumer", a)
    with pytest.raises(BundleError, match=r"nothing/\.lock: cannot be locked"):
        registry.retire(bundles, "nothing", a)
    with pytest.raises(BundleError, match="made for schema"):
        registry.promote(bundles, make(0.0), schemas.load("features/schemas/auto.yaml"))
    with pytest.raises(BundleError, match="has no champion to challenge"):
        registry.challenge(bundles.parent / "other", make(0.0), consumer)
    with pytest.raises(SchemaError, match="cannot be read"):
        registry.served_schema(ROOT / "features/schemas", "nothing")
    assert registry.read(bundles / "consumer") == Roles(champion=a)


def damage(bundle: Path) -> None:
    (bundle / "fraud_trees.onnx").write_bytes(b"something else")


def forget(bundle: Path) -> None:
    """Another probe, as if another runtime had written it."""
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    manifest["labels"]["default"]["probe"][0] = 0.987
    (bundle / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("break_it", "problem"), [(damage, r"fraud_trees\.onnx: differs"), (forget, "default: the probe differs")]
)
def test_a_bundle_that_does_not_score_here_gets_no_role(
    consumer: Schema, bundles: Path, make: MakeBundle, break_it: Callable[[Path], None], problem: str
) -> None:
    before = registry.read(bundles / "consumer")
    broken = make(0.3)
    break_it(broken)
    for give in (registry.promote, registry.challenge):
        with pytest.raises(BundleError, match=problem):
            give(bundles, broken, consumer)
    assert registry.read(bundles / "consumer") == before
    assert sorted(f.name for f in (bundles / "consumer").iterdir()) == sorted([before.champion, ROLES, LOCK])


def test_a_rollback_to_a_damaged_bundle_refuses(consumer: Schema, bundles: Path, make: MakeBundle) -> None:
    registry.promote(bundles, make(0.1), consumer)
    roles = registry.read(bundles / "consumer")
    damage(bundles / "consumer" / roles.previous[-1])
    with pytest.raises(BundleError, match=r"fraud_trees\.onnx: differs"):
        registry.rollback(bundles, "consumer")
    with pytest.raises(BundleError, match=r"fraud_trees\.onnx: differs"):
        registry.promote(bundles, make(0.0), consumer)
    assert registry.read(bundles / "consumer") == roles


def test_a_folder_that_holds_another_version_refuses(consumer: Schema, bundles: Path, make: MakeBundle) -> None:
    other = version(make(0.1))
    shutil.copytree(make(0.2), bundles / "consumer" / other)
    with pytest.raises(BundleError, match=rf"{other}/{MANIFEST}: is version {version(make(0.2))}"):
        registry.promote(bundles, make(0.1), consumer)


def test_what_is_refused_at_first_makes_no_folder(consumer: Schema, make: MakeBundle, tmp_path: Path) -> None:
    broken = make(0.3)
    forget(broken)
    with pytest.raises(BundleError, match="the probe differs"):
        registry.promote(tmp_path / "new", broken, consumer)
    assert not (tmp_path / "new").exists()


def test_what_is_promoted_can_be_read_by_another_user(consumer: Schema, make: MakeBundle, tmp_path: Path) -> None:
    source = make(0.0)
    for file in source.iterdir():
        file.chmod(0o600)
    before = os.umask(0o077)
    try:
        version, _ = registry.promote(tmp_path / "bundles", source, consumer)
    finally:
        os.umask(before)
    place = tmp_path / "bundles/consumer"
    for folder in (place.parent, place, place / version):
        assert folder.stat().st_mode & 0o777 == 0o755
    for file in (place / ROLES, *(place / version).iterdir()):
        assert file.stat().st_mode & 0o777 == 0o644


def test_a_change_waits_for_the_lock_and_says_where_it_cannot_lock(bundles: Path, make: MakeBundle) -> None:
    lock = bundles / "consumer" / LOCK
    with lock.open("a") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        change = pool.submit(registry.retire, bundles, "consumer", "0" * 16)
        with pytest.raises(TimeoutError):
            change.result(0.2)
        fcntl.flock(held, fcntl.LOCK_UN)
        with pytest.raises(BundleError, match="is no challenger"):
            change.result(5)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(BundleError, match=r"consumer/\.lock: cannot be locked: Is a directory"):
        registry.retire(bundles, "consumer", "0" * 16)


@pytest.fixture
def wider(consumer: Schema) -> Schema:
    """The next version of the consumer schema."""
    return Schema({**consumer.document, "version": consumer.version + 1}, "wider.yaml")


def test_servers_of_both_schemas_find_a_champion(
    consumer: Schema, wider: Schema, bundles: Path, make: MakeBundle
) -> None:
    """While a lender moves to the next version of a schema, and when it moves back."""
    folder, a = bundles / "consumer", version(make(0.0))
    registry.promote(bundles, make(0.1), consumer)
    b = version(make(0.1))
    c, _ = registry.promote(bundles, made_for(wider, make(0.2), bundles.parent / "wider"), wider)
    roles = registry.read(folder)
    assert roles == Roles(champion=c, previous=(a, b))
    assert [registry.fitting(folder, roles, schema) for schema in (wider, consumer)] == [c, b]
    (folder / b / MANIFEST).unlink()
    assert registry.fitting(folder, roles, consumer) == a
    assert registry.fitting(folder, roles, schemas.load("features/schemas/auto.yaml")) == c  # none: load says why
    shutil.copy(make(0.1) / MANIFEST, folder / b)
    asked = ["rollback", "--registry", str(bundles), "--schema", "consumer"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0 and "warning" not in done.output and registry.read(folder).champion == b
    registry.promote(bundles, make(0.1), consumer)
    (bundles.parent / "schemas").mkdir()
    (bundles.parent / "schemas/consumer.yaml").write_text(yaml.safe_dump(wider.document, sort_keys=False))
    done = CliRunner().invoke(app, asked[:1] + asked[3:], env={
        "MIAOPI_BUNDLES": str(bundles), "MIAOPI_SCHEMAS": str(bundles.parent / "schemas"),
    })  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"made for schema {consumer.hash}: servers of {wider.hash} start only" in done.output
    assert registry.read(folder) == Roles(champion=a)


A, B = "a" * 16, "b" * 16


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Invalid JSON"),
        ("{}", "champion: Field required"),
        (json.dumps({"champion": "../evil"}), "champion: String should match"),
        (json.dumps({"champion": 5}), "champion: Input should be a valid string"),
        (json.dumps({"champion": A, "canary": B}), "canary: Extra inputs"),
        (json.dumps({"champion": A, "challengers": [A]}), "two roles"),
        (json.dumps({"champion": A, "challengers": [B, B]}), "two roles"),
        (json.dumps({"champion": A, "previous": A}), "previous: Input should be a valid"),
    ],
)
def test_unfit_roles_refuse(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / ROLES).write_text(text)
    with pytest.raises(BundleError, match=f"{tmp_path / ROLES}: .*{problem}"):
        registry.read(tmp_path)


def test_promotions_at_once_are_all_kept(consumer: Schema, bundles: Path, make: MakeBundle) -> None:
    first = registry.read(bundles / "consumer").champion
    made = [make(0.1 * i) for i in range(1, 5)]
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(lambda bundle: registry.promote(bundles, bundle, consumer), made))
    roles = registry.read(bundles / "consumer")
    assert roles.previous[0] == first
    assert sorted((*roles.previous[1:], roles.champion)) == sorted(version(bundle) for bundle in made)


def test_command_line(bundles: Path, make: MakeBundle) -> None:
    a, b = version(make(0.0)), version(make(0.1))
    where = ["--registry", str(bundles)]

    def said(*asked: str) -> str:
        done = CliRunner().invoke(app, [*asked, *where], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    assert said("promote", "--bundle", str(make(0.1)), "--challenger") == f"consumer: {b} is a challenger\n"
    assert f"{b} │ challenger" in said("list")
    assert said("retire", "--schema", "consumer", "--version", b) == f"consumer: {b} is no challenger any more\n"
    assert said("promote", "--bundle", str(make(0.1))) == f"consumer: {b} is the champion, before: {a}\n"
    shown = said("list")
    assert f"{b} │ champion" in shown and f"{a} │ previous" in shown and "fraud: auc" in shown and "2025-" in shown
    assert said("rollback", "--schema", "consumer") == f"consumer: {a} is the champion again\n"
    (bundles / "consumer" / a / "fraud_forest.npz").unlink()  # not looked at
    for text, mark in (
        ("[", "does not load: is no manifest"),
        ('{"format": 1}', "does not load: format 1, 2 and 3 are read"),
    ):
        (bundles / "consumer" / b / MANIFEST).write_text(text)
        shown = said("list")
        assert f"{a} │ champion" in shown and mark in shown
    shutil.rmtree(bundles / "consumer" / b)
    (bundles / "consumer" / b).mkdir()
    (bundles / "consumer" / b / MANIFEST).write_text('{"format": 2, "labels": {}}')
    assert "does not load: is no manifest: KeyError('training')" in said("list")


CORE_ONLY = """
import runpy, sys
for heavy in ("torch", "onnx", "xgboost", "sklearn", "lightgbm"):
    sys.modules[heavy] = None
runpy.run_module("models", run_name="__main__")
"""


def test_roles_need_nothing_that_trains(consumer: Schema, bundles: Path, make: MakeBundle) -> None:
    """Where the service runs, as in its image."""
    registry.promote(bundles, make(0.1), consumer)
    for code, said in ((0, f"{version(make(0.0))} is the champion again"), (1, "no champion before")):
        done = subprocess.run(
            [sys.executable, "-c", CORE_ONLY, "rollback", "--registry", str(bundles), "--schema", "consumer"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code and said in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_no_request_fails_while_champions_change() -> None:
    figures = run(promotions=2)
    assert figures["failed"] == figures["mixed"] == 0 and figures["requests"] > 100
    assert figures["seconds_to_new_version_max"] < 5  # the machine that tests may be busy
    assert figures["challenger_recorded"] > 0
