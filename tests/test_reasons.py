import numpy as np

from features.neighborhood import NEIGHBOR_COLUMNS
from features.schema import Schema
from models.probe import random_snapshot
from models.reasons import feature_reasons, graph_reason


def explained(consumer: Schema, **values: float) -> list[tuple[str, str, str, str]]:
    """Reasons of an application with these features, each counting more than the one after it."""
    columns = consumer.columns("fraud")
    row = np.full(len(consumer.features), np.nan, dtype=np.float32)
    contributions = np.full(len(columns), -1.0)
    for rank, (name, value) in enumerate(values.items()):
        row[consumer.column[name]] = value
        contributions[np.searchsorted(columns, consumer.column[name])] = 1.0 / (rank + 1)
    (reasons,) = feature_reasons(consumer, columns, contributions[None], row[None])
    assert [r.contribution for r in reasons] == sorted((r.contribution for r in reasons), reverse=True)
    return [(r.code, r.zh, r.en, r.evidence) for r in reasons]


def test_words_of_a_reason(consumer: Schema) -> None:
    assert explained(consumer, device_count_24h=7, amount=50000.5, bureau_utilisation=0.8125, housing=3) == [
        ("DEVICE_COUNT_24H", "同一设备近24小时申请数: 7", "device: applications in 24 hours: 7", "device_count_24h=7"),
        ("AMOUNT", "申请金额: 50000.5元", "amount asked for: 50000.5 CNY", "amount=50000.5"),
        ("BUREAU_UTILISATION", "授信使用率: 81.25%", "credit line utilisation: 81.25%", "bureau_utilisation=0.8125"),
        ("HOUSING", "居住状况: owned", "housing: owned", "housing=owned"),
    ]
    assert explained(consumer, device_emulator=1, tax_income=np.nan) == [
        ("DEVICE_EMULATOR", "模拟器: 是", "emulator: yes", "device_emulator=1"),
        ("TAX_INCOME", "个税月收入: 缺失", "monthly income by tax: missing", "tax_income=missing"),
    ]


def test_a_reason_names_its_model(consumer: Schema) -> None:
    row = np.full(len(consumer.features), 2, dtype=np.float32)
    for label in ("fraud", "default"):
        columns = consumer.columns(label)
        contributions = np.where(
            np.isin(columns, [consumer.column["telecom_months"], consumer.column["tax_income"]]), 1, 0
        )
        (reasons,) = feature_reasons(consumer, columns, contributions.astype(np.float64)[None], row[None], label=label)
        assert {r.evidence for r in reasons} == {f"{label}: telecom_months=2", f"{label}: tax_income"}


def test_words_of_the_graph_network(consumer: Schema) -> None:
    """Whom the actual neighbours tie it to: others on the device, no one where all are its own, a hub by its frauds."""
    snapshot = random_snapshot(consumer, 1, 0)
    snapshot.neighbor_mask[:] = False
    snapshot.neighbor_state[:] = 0
    alone = graph_reason(consumer, 0.5, snapshot, 0, "fraud")
    assert (alone.code, alone.contribution) == ("GRAPH_PATTERN", 0.5)
    assert (
        alone.zh == "申请与其关联网络的模式异常" and alone.evidence == "fraud: no applications of others are tied to it"
    )

    def neighbours(entity: str, others: int, own: int, frauds: int, hours: float, offset: int = 0) -> None:
        slot = consumer.entities[entity].first_slot + offset
        snapshot.neighbor_mask[0, slot, : others + own] = True
        state = snapshot.neighbor_state[0, slot]
        state[: others + own, NEIGHBOR_COLUMNS.index("gap_hours")] = hours + np.arange(others + own)
        state[others : others + own, NEIGHBOR_COLUMNS.index("same_applicant")] = 1
        state[:frauds, NEIGHBOR_COLUMNS.index("fraud")] = 1

    neighbours("device", others=5, own=1, frauds=2, hours=0.25)
    neighbours("contact", others=1, own=0, frauds=0, hours=30, offset=1)
    neighbours("contact", others=2, own=0, frauds=0, hours=40, offset=2)
    neighbours("card", others=0, own=3, frauds=0, hours=1)
    neighbours("ip", others=8, own=0, frauds=0, hours=0)
    reason = graph_reason(consumer, 0.5, snapshot, 0, "fraud")
    assert reason.evidence == (
        "fraud: device others=5/6 fraud=2 latest_hours=0.2; contact others=2/2 fraud=0 latest_hours=40"
    )
    assert reason.zh.startswith(
        "申请与其关联网络的模式异常: 同一设备近6笔申请中他人5笔, 已确认欺诈2笔, 最近一笔在0.2小时前; 同一紧急联系人"
    )
    assert "device: 5 of its last 6 applications by others, 2 confirmed fraud, the latest 0.2 hours ago" in reason.en
    neighbours("ip", others=8, own=0, frauds=1, hours=0)
    assert "ip others=8/8 fraud=1" in graph_reason(consumer, 0.5, snapshot, 0, "fraud").evidence


def test_personal_values_stay_out(consumer: Schema) -> None:
    personal = {f.name: 123456.0 for f in consumer.features if f.personal and not f.values}
    personal |= {f.name: 1.0 for f in consumer.features if f.personal and f.values}
    for name, value in personal.items():
        ((code, zh, en, evidence),) = explained(consumer, **{name: value})
        assert (code, evidence) == (name.upper(), name)
        assert "123456" not in zh + en and ":" not in zh + en


def test_at_most_top_and_only_towards_bad(consumer: Schema) -> None:
    columns = consumer.columns("default")
    row = np.ones(len(consumer.features), dtype=np.float32)
    assert len(feature_reasons(consumer, columns, np.ones((1, len(columns))), row[None])[0]) == 4
    assert len(feature_reasons(consumer, columns, np.ones((1, len(columns))), row[None], top=2)[0]) == 2
    assert feature_reasons(consumer, columns, np.zeros((1, len(columns))), row[None]) == [[]]
