"""Versions of policies on disk: what is refused leaves them as they were, no change is lost, none is half there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from policy import versions
from policy.__main__ import app
from policy.cases import CASES, CasesError
from policy.decide import POLICY
from policy.errors import PolicyError
from policy.reasons import REASONS_PATH
from policy.versions import LOCK, PUBLISHED, ROLES, WORDS, Roles
from tests.conftest import ROOT
from tests.policies import PRODUCT, cards, change_case, policy_folder
from tests.test_policy_tables import in_both_languages


def publish(policies: Path, source: Path, by: str = "Li Wei") -> str:
    return versions.publish(policies, source, PRODUCT, cards(), by, "why")[0]


def rollback(policies: Path) -> str:
    return versions.rollback(policies, PRODUCT, cards(), "Li Wei").current


def serving(policies: Path) -> str:
    """The version that a server would load."""
    return versions.load(versions.in_service(policies / PRODUCT), PRODUCT, cards()).version


def everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != LOCK}


def test_versions_come_and_go_back(tmp_path: Path) -> None:
    policies, folder = tmp_path / "policies", tmp_path / "policies" / PRODUCT
    a, b = (publish(policies, policy_folder(tmp_path / cut, cut)) for cut in ("0.5", "0.4"))
    assert a != b and serving(policies) == b
    roles = versions.read(folder)
    assert roles is not None and (roles.current, roles.previous) == (b, (a,))
    assert [(c.action, c.version, c.by, c.note) for c in roles.changes] == [
        ("publish", a, "Li Wei", "why"), ("publish", b, "Li Wei", "why"),
    ]  # fmt: skip
    assert rollback(policies) == serving(policies) == a
    with pytest.raises(PolicyError, match=f"{ROLES}: no version before {a}") as refused:
        rollback(policies)
    assert in_both_languages(refused.value)
    assert publish(policies, folder / b) == serving(policies) == b  # from where it lies
    roles = versions.read(folder)
    assert roles is not None and roles.previous == (a,) and len(roles.changes) == 4
    assert sorted(f.name for f in folder.iterdir()) == sorted([a, b, ROLES, LOCK])  # nothing else
    assert sorted(f.name for f in (folder / a).iterdir()) == sorted([POLICY, WORDS, CASES, PUBLISHED])
    assert json.loads((folder / a / PUBLISHED).read_text())["by"] == "Li Wei"


def test_the_same_version_again_changes_nothing_but_its_cases(tmp_path: Path) -> None:
    policies, source = tmp_path / "policies", policy_folder(tmp_path / "draft")
    version = publish(policies, source)
    before = everything(policies)
    assert publish(policies, source, "somebody else") == version and everything(policies) == before
    change_case(source, "fraud-review", {"fraud_probability": "0.3"})
    assert publish(policies, source) == version
    changed = {name for name, content in everything(policies).items() if before.get(name) != content}
    assert changed == {f"{PRODUCT}/{version}/{CASES}"} and serving(policies) == version


def test_a_working_copy_is_kept_and_comes_back(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    place = policy_folder(policies / PRODUCT)
    working = serving(policies)
    new = publish(policies, policy_folder(tmp_path / "draft", "0.4"))
    (place / POLICY).write_text("no longer looked at")
    assert serving(policies) == new and rollback(policies) == serving(policies) == working


def test_a_working_copy_becomes_the_first_version(tmp_path: Path) -> None:
    place = policy_folder(tmp_path / "policies" / PRODUCT)
    version = publish(tmp_path / "policies", place)
    roles = versions.read(place)
    assert roles is not None and (roles.current, roles.previous) == (version, ()) and serving(tmp_path / "policies")


def test_words_beside_a_policy_are_its_own_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they were the shipped ones, which a later release may word otherwise."""
    version = publish(tmp_path / "policies", policy_folder(tmp_path / "draft"))
    other = tmp_path / WORDS
    other.write_text(REASONS_PATH.read_text(encoding="utf-8") + "MORE: {zh: 更多, en: more}\n", encoding="utf-8")
    monkeypatch.setattr("policy.decide.REASONS_PATH", other)
    assert serving(tmp_path / "policies") == version
    assert versions.load(tmp_path / "draft", PRODUCT, cards()).version != version


def no_cases(source: Path) -> None:
    (source / CASES).unlink()


def failing(source: Path) -> None:
    change_case(source, "fraud-decline", {"fraud_probability": "0.1"})


def gap(source: Path) -> None:
    text = (source / POLICY).read_text(encoding="utf-8")
    (source / POLICY).write_text(text.replace("< 0.2", "< 0.1"), encoding="utf-8")


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [(no_cases, "only a policy with cases is published"), (failing, "1 of 6 cases fail"), (gap, "no row for")],
)
def test_what_is_refused_leaves_everything_as_it_was(
    tmp_path: Path, break_it: Callable[[Path], None], problem: str
) -> None:
    policies, broken = tmp_path / "policies", policy_folder(tmp_path / "broken", "0.3")
    break_it(broken)
    with pytest.raises(PolicyError, match=problem) as refused:
        publish(policies, broken)
    assert in_both_languages(refused.value)
    assert not policies.exists()
    publish(policies, policy_folder(tmp_path / "good"))
    before = everything(policies)
    with pytest.raises(PolicyError, match=problem):
        publish(policies, broken)
    with pytest.raises(PolicyError, match="must be named") as refused:
        publish(policies, policy_folder(tmp_path / "other", "0.4"), by=" ")
    assert in_both_languages(refused.value)
    assert everything(policies) == before


def test_a_broken_working_copy_refuses_to_be_published_over(tmp_path: Path) -> None:
    """It could not be rolled back to."""
    place = policy_folder(tmp_path / "policies" / PRODUCT)
    failing(place)
    before = everything(tmp_path / "policies")
    with pytest.raises(CasesError, match=rf"{PRODUCT}/{CASES}: 1 of 6 cases fail"):
        publish(tmp_path / "policies", policy_folder(tmp_path / "draft", "0.4"))
    assert everything(tmp_path / "policies") == before


@pytest.mark.parametrize("name", [POLICY, WORDS])
def test_a_version_that_was_changed_afterwards_refuses(tmp_path: Path, name: str) -> None:
    policies = tmp_path / "policies"
    source = policy_folder(tmp_path / "a")
    a, b = publish(policies, source), publish(policies, policy_folder(tmp_path / "b", "0.4"))
    file = policies / PRODUCT / a / name
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(PolicyError, match=f"{a}/{POLICY}: was changed after it was published"):
        rollback(policies)
    with pytest.raises(PolicyError, match=f"{a}/{POLICY}: was changed after it was published"):
        publish(policies, source)
    assert serving(policies) == b
    file = policies / PRODUCT / b / name
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(PolicyError, match=f"{b}/{POLICY}: was changed after it was published") as refused:
        serving(policies)
    assert in_both_languages(refused.value)


def test_a_publication_that_died_half_way_is_not_there(tmp_path: Path) -> None:
    """Killed while it copied, before the roles named it, or while it wrote them; the next one is not in its way."""
    policies, draft = tmp_path / "policies", policy_folder(tmp_path / "draft", "0.4")
    first = publish(policies, policy_folder(tmp_path / "first"))
    second = publish(tmp_path / "elsewhere", draft)
    folder = policies / PRODUCT
    (folder / ".tmpdead" / second).mkdir(parents=True)
    shutil.copyfile(draft / POLICY, folder / ".tmpdead" / second / POLICY)
    assert serving(policies) == first
    shutil.copytree(tmp_path / "elsewhere" / PRODUCT / second, folder / second)
    assert serving(policies) == first
    (folder / f".{ROLES}").write_text('{"current": "')
    assert serving(policies) == first
    assert publish(policies, draft) == second == serving(policies)
    assert rollback(policies) == first


def test_publications_at_once_are_all_kept(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policy_folder(policies / PRODUCT)
    working = serving(policies)
    drafts = [policy_folder(tmp_path / cut, cut) for cut in ("0.3", "0.4", "0.6", "0.7")]
    with ThreadPoolExecutor(len(drafts)) as pool:
        made = list(pool.map(lambda draft: publish(policies, draft), drafts))
    roles = versions.read(policies / PRODUCT)
    assert roles is not None and roles.previous[0] == working
    assert sorted((*roles.previous[1:], roles.current)) == sorted(made)
    assert [c.version for c in roles.changes] == [working, *roles.previous[1:], roles.current]


def test_two_commands_at_once_are_both_kept(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    drafts = [policy_folder(tmp_path / str(i) / PRODUCT, cut) for i, cut in enumerate(("0.3", "0.4"))]
    how = ["--policies", str(policies), "--by", "Li", "--note", ""]
    running = [
        subprocess.Popen([sys.executable, "-m", "policy", "publish", str(draft), *how], cwd=ROOT) for draft in drafts
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    roles = versions.read(policies / PRODUCT)
    assert roles is not None and len(roles.previous) == 1 and len(roles.changes) == 2 and serving(policies)


def test_what_is_published_can_be_read_by_another_user(tmp_path: Path) -> None:
    source = policy_folder(tmp_path / "draft")
    for file in source.iterdir():
        file.chmod(0o600)
    before = os.umask(0o077)
    try:
        version = publish(tmp_path / "policies", source)
    finally:
        os.umask(before)
    place = tmp_path / "policies" / PRODUCT
    for folder in (place.parent, place, place / version):
        assert folder.stat().st_mode & 0o777 == 0o755
    for file in (place / ROLES, *(place / version).iterdir()):
        assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Invalid JSON"),
        ("{}", "current: Field required"),
        (json.dumps({"current": "../evil"}), "current: String should match"),
        (json.dumps({"current": "a" * 64, "next": "b"}), "next: Extra inputs"),
        (Roles(current="a" * 64).model_dump_json(), f"{'a' * 64}/{POLICY}: cannot be read"),
    ],
)
def test_unfit_roles_refuse(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / PRODUCT).mkdir()
    (tmp_path / PRODUCT / ROLES).write_text(text)
    with pytest.raises(PolicyError, match=f"{tmp_path / PRODUCT}/.*{problem}") as refused:
        serving(tmp_path)
    assert in_both_languages(refused.value)


def test_a_lock_that_cannot_be_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / PRODUCT / LOCK).mkdir(parents=True)
    with pytest.raises(PolicyError, match=r"\.lock: cannot be locked: Is a directory") as refused:
        publish(tmp_path, policy_folder(tmp_path / "draft"))
    assert in_both_languages(refused.value)


def test_command_line(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    place, draft = policy_folder(policies / PRODUCT), policy_folder(tmp_path / "draft" / PRODUCT, "0.4")
    old, new = (versions.load(folder, PRODUCT, cards()).version for folder in (place, draft))

    def said(*asked: str, code: int = 0) -> str:
        done = CliRunner().invoke(
            app, list(asked), env={"COLUMNS": "250", "MIAOPI_POLICIES": str(policies), "MIAOPI_SCHEMAS": None}
        )
        assert done.exit_code == code, done.output
        return done.output

    assert f"{PRODUCT}: {old}, 6 cases pass" in said("check", PRODUCT) and "a working copy" in said("list")
    assert "no case" not in said("check", str(draft))
    assert said("diff", PRODUCT, str(draft)).splitlines() == [
        "table fraud, row decline, column fraud_probability: >= 0.5 → >= 0.4"
        " | 表 fraud、行 decline、列 fraud_probability：>= 0.5 → >= 0.4",
        "table fraud, row review, column fraud_probability: [0.2..0.5) → [0.2..0.4)"
        " | 表 fraud、行 review、列 fraud_probability：[0.2..0.5) → [0.2..0.4)",
        "case fraud-decline: outcome review → decline, reasons FRAUD_SUSPECTED → FRAUD_PROBABILITY_HIGH"
        " | 案例 fraud-decline：outcome review → decline，reasons FRAUD_SUSPECTED → FRAUD_PROBABILITY_HIGH",
        "1 of 6 cases come out otherwise | 6 个案例中 1 个结果不同",
    ]
    assert said("diff", PRODUCT, str(place)).splitlines() == [
        "nothing differs | 没有不同", "0 of 6 cases come out otherwise | 6 个案例中 0 个结果不同",
    ]  # fmt: skip
    by = ["--by", "Li Wei", "--note", "stricter [bold]"]
    assert said("publish", str(draft), *by) == f"{PRODUCT}: {new} is in service, before: {old}\n"
    assert f"{PRODUCT}: {new}, 6 cases pass" in said("check", PRODUCT)
    assert said("rollback", "--product", PRODUCT, *by[:2]) == f"{PRODUCT}: {old} is in service again\n"
    listed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said("list").splitlines() if "│" in line]
    assert [row[1:4] for row in listed] == [
        [old, "kept", ""], [new, "publish", "Li Wei"], [old, "rollback (in service)", "Li Wei"]
    ]  # fmt: skip
    assert listed[1][5] == "stricter [bold]"
    no_cases(draft)
    assert "so the policy cannot be published" in said("check", str(draft))
    renamed = policy_folder(tmp_path / "new rules", "0.4")
    assert f"{PRODUCT}: {new}" in said("check", str(renamed), "--product", PRODUCT)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (["check", "nothing"], "no product 'nothing' in"),
        (["check", "broken"], "of which product? --product is one of"),
        (["check", f"broken/{PRODUCT}"], "case 'fraud-decline' (line 3): expected outcome decline, came approve"),
        (["publish", f"broken/{PRODUCT}", "--by", "Li", "--note", ""], "1 of 6 cases fail"),
        (["rollback", "--product", PRODUCT, "--by", "Li"], "no version before the working copy"),
        (["rollback", "--product", "nothing", "--by", "Li"], "no schema has the product 'nothing'"),
        (["list", "--policies", "nowhere"], "nowhere"),
    ],
)
def test_a_command_that_is_refused_ends_with_status_2(tmp_path: Path, asked: list[str], problem: str) -> None:
    shutil.copytree(policy_folder(tmp_path / "broken" / PRODUCT), tmp_path / "broken", dirs_exist_ok=True)
    failing(tmp_path / "broken" / PRODUCT)
    policy_folder(tmp_path / "policies" / PRODUCT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MIAOPI_SCHEMAS": str(ROOT / "features/schemas")}
    done = subprocess.run(
        [sys.executable, "-m", "policy", *asked], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**environment, "MIAOPI_POLICIES": "policies"},
    )  # fmt: skip
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr, done.stderr
