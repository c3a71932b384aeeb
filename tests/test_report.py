"""The page: its figures are those of scikit-learn, its bytes repeat, and it needs nothing from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from features.application import Snapshot
from features.schema import Schema
from models import verdict
from models.bundle import Bundle
from models.report import FIGURES, LabelTrial, Sample, card_lines, findings, render
from models.scorer import LabelScorer
from tests.snapshots import random_rows, trained_bundle

TREES, GNN = "trees + aggregates", "trees + aggregates + GNN"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that every tag is closed in order, and collects rows of tables as their cells' texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        self.links |= {found[key] or "" for key in ("href", "xlink:href", "src", "data", "action") if key in found}
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip() + " "


@pytest.fixture(scope="module")
def bundle(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(trained_bundle(consumer, tmp_path_factory), consumer)


@pytest.fixture(scope="module")
def trials(consumer: Schema, bundle: Bundle) -> list[LabelTrial]:
    """Of both labels, on rows that the bundle has never seen; a network is compared with the trees alone."""
    rows = random_rows(consumer, 2400, 9)
    made = []
    for label, model in bundle.models.items():
        columns, calibration = consumer.columns(label), model.calibration
        alone = replace(model, gnn_onnx=None, calibration=replace(calibration, weights=calibration.weights[:1]))
        variants = {TREES: LabelScorer(alone, columns)}
        if model.gnn_onnx is not None:
            variants[GNN] = LabelScorer(model, columns)
        known = np.flatnonzero(rows.labels[label] >= 0)

        def sample(part: np.ndarray, label: str = label, variants: dict[str, LabelScorer] = variants) -> Sample:
            snapshot: Snapshot = rows.snapshot.take(part)
            scores = {name: scorer.score(snapshot) for name, scorer in variants.items()}
            return Sample(rows.labels[label][part], rows.event_time_ms[part], snapshot, scores)

        halves = [sample(part) for part in np.array_split(known, 2)]
        chosen = list(variants)[-1]
        made.append(LabelTrial(label, chosen, variants[chosen], rows.snapshot.features[:900], *halves))
    return made


@pytest.fixture(scope="module")
def page(consumer: Schema, bundle: Bundle, trials: list[LabelTrial]) -> str:
    return render(consumer, bundle.manifest["training"], trials)


def test_the_page_stands_alone(page: str) -> None:
    parsed = Page(page)
    assert not re.search(r"https?:|//[a-z]|\bsrc\s*=|@import|<script|<link|<iframe|url\((?!#)", page)
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert all(link in parsed.ids for link in re.findall(r"url\(#(\w+)\)", page))
    assert len(page.encode()) < 500_000
    assert "nan" not in re.sub(r"<style>.*?</style>|<path[^>]*>", "", page, flags=re.DOTALL).lower().split()


def test_the_same_rows_give_the_same_bytes(
    consumer: Schema, bundle: Bundle, trials: list[LabelTrial], page: str
) -> None:
    assert render(consumer, bundle.manifest["training"], trials) == page


def test_figures_are_those_of_scikit_learn(page: str, trials: list[LabelTrial]) -> None:
    rows = Page(page).rows
    for trial in trials:
        for name, sample in trial.samples.items():
            for variant, probability in sample.probability.items():
                labels = sample.labels
                area = roc_auc_score(labels, probability)
                shown = {
                    "AUC": area, "Gini": 2 * area - 1, "AUPRC": average_precision_score(labels, probability),
                    "Brier": brier_score_loss(labels, probability),
                }  # fmt: skip
                expected = {list(FIGURES.values()).index(title) + 2: f"{value:.3f}" for title, value in shown.items()}
                assert any(
                    cells[:2] == [variant, name] and all(cells[at].startswith(text) for at, text in expected.items())
                    for cells in ([cell.strip() for cell in row] for row in rows)
                ), (trial.label, name, variant)


def test_every_declared_group_and_bound_feature_is_shown(page: str, consumer: Schema) -> None:
    rows = [[cell.strip() for cell in row] for row in Page(page).rows if row]
    names = {row[0] for row in rows}
    assert {"under 25", "25 to under 35", "60 and over"} <= names
    assert set(consumer.features[consumer.column["education"]].values) <= names
    swept = {row[0] for row in rows if len(row) > 1 and row[1] in ("riskier as it grows", "safer as it grows")}
    assert {f.name for f in consumer.features if f.monotone.get("default")} <= swept


def test_findings_split_what_the_network_adds(consumer: Schema, trials: list[LabelTrial]) -> None:
    fraud, default = (findings(consumer, trial) for trial in trials)
    ((after, before, gain, (low, high)),) = fraud.differences
    assert (after, before) == (GNN, TREES) and low <= gain <= high and low > 0  # rings are seen by the network alone
    assert default.differences == []
    assert sum(band.bad for band in fraud.bands) == fraud.trial.test.labels.sum()
    assert 0 <= fraud.score_psi < 0.1 and len(fraud.periods) == 6
    judged, slot = fraud.trial.test.snapshot, consumer.entities["device"].first_slot
    named = (~np.isnan(judged.entity_state[:, slot])).any(axis=1).mean()
    assert fraud.entities["device"] == (named, judged.neighbor_mask[:, slot].any(axis=1).mean())
    assert default.influences[0].name in ("bureau_overdue_24m", "employment_months")  # what random_rows made it of


def test_the_verdict_says_what_is_not_known_and_what_is_wrong(consumer: Schema, trials: list[LabelTrial]) -> None:
    states = {check.question: check.state for check in verdict.checks(findings(consumer, trials[1]))}
    assert states["Does it rank rows that chose nothing?"] == verdict.PASS
    assert states["Does it keep the declared directions?"] == verdict.PASS
    assert states["Are the rows like those learned from?"] == verdict.PASS
    mute = Schema(consumer.document | {"fairness": {}}, "w.yaml")
    unknown = {check.question: check.answer for check in verdict.checks(findings(mute, trials[1]))}
    assert "declares no groups" in unknown["Are declared groups treated alike?"]
    judge = trials[1].validation
    wrong = replace(trials[1], test=replace(judge, probability={TREES: 1 - judge.probability[TREES]}))
    states = {check.question: check.state for check in verdict.checks(findings(consumer, wrong))}
    assert states["Does it rank rows that chose nothing?"] == verdict.LOOK
    assert states["Are its probabilities right on average?"] == verdict.LOOK


def test_card_lines(consumer: Schema, trials: list[LabelTrial]) -> None:
    lines = card_lines(consumer, trials[0])
    judge = trials[0].test
    assert lines[0] == f"Test rows: {len(judge.labels)}, {judge.labels.sum()} bad, by {trials[0].chosen} of the trial."
    assert any(
        line.startswith(f"| AUC | {roc_auc_score(judge.labels, judge.probability[GNN]):.4g} |") for line in lines
    )
    groups = [line for line in lines if line.startswith("| housing |")]
    assert len(groups) == 5 and all(line.count("|") == 8 for line in groups)  # four kinds, and missing
    assert "no groups" in card_lines(Schema(consumer.document | {"fairness": {}}, "w.yaml"), trials[0])[-1]


def test_a_variant_that_was_not_scored_is_refused(consumer: Schema, trials: list[LabelTrial]) -> None:
    with pytest.raises(KeyError, match="another"):
        render(consumer, {}, [replace(trials[0], chosen="another")])
