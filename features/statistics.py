"""The statistics that the graph keeps: names, units and words. features.graph computes them in this order.

Unit "currency" is the schema's. The words follow the entity's name, in Chinese and English.
"""

# Of one entity, strictly before the application; columns of `Snapshot.entity_state`.
ENTITY_STATS: dict[str, tuple[str, str, str]] = {
    "count_1h": ("applications", "近1小时申请数", "applications in 1 hour"),
    "count_24h": ("applications", "近24小时申请数", "applications in 24 hours"),
    "count_7d": ("applications", "近7天申请数", "applications in 7 days"),
    "count_30d": ("applications", "近30天申请数", "applications in 30 days"),
    "count_all": ("applications", "累计申请数", "applications ever"),
    "gap_hours": ("hours", "距上次申请小时数", "hours since the last application"),
    "age_days": ("days", "首次出现至今天数", "days since first seen"),
    "amount_mean": ("currency", "历史平均金额", "mean amount so far"),
    "amount_ratio": ("ratio", "本次金额与历史均值之比", "this amount against the mean so far"),
    "amount_last_ratio": ("ratio", "本次金额与上次之比", "this amount against the last"),
    "amount_max_ratio": ("ratio", "本次金额与历史最大之比", "this amount against the largest so far"),
    "amount_deviation": (
        "deviations",
        "本次金额偏离历史均值的标准差数",
        "this amount in standard deviations from the mean so far",
    ),
    "fraud_count": ("applications", "已确认欺诈数", "confirmed frauds"),
    "fraud_rate": ("rate", "已知欺诈率(平滑)", "known fraud rate, smoothed"),
    "recent_fraud_rate": ("rate", "近16笔已知欺诈率(平滑)", "known fraud rate of the last 16, smoothed"),
    "default_count": ("applications", "已知违约数", "known defaults"),
    "default_rate": ("rate", "已知违约率(平滑)", "known default rate, smoothed"),
    "labelled_count": ("applications", "已有结果数", "applications with a known result"),
    "distinct_applicants": ("applicants", "近16笔中不同申请人数", "different applicants among the last 16"),
    "other_applicants": ("applicants", "近16笔中他人人数", "other applicants among the last 16"),
    "fraud_score": ("rate", "欺诈率(经验贝叶斯)", "fraud rate by empirical Bayes"),
    "default_score": ("rate", "违约率(经验贝叶斯)", "default rate by empirical Bayes"),
}

# Over all linked entities of an application.
GRAPH_STATS: dict[str, tuple[str, str, str]] = {
    "linked_applications": ("applications", "关联的他人申请数", "applications of others linked to this one"),
    "linked_applicants": ("applicants", "关联的他人人数", "other applicants linked to this one"),
    "linked_24h": ("applications", "近24小时关联的他人申请数", "linked applications of others in 24 hours"),
    "linked_fraud": ("applications", "关联申请中已确认欺诈数", "confirmed frauds among linked applications"),
    "linked_fraud_rate": ("rate", "关联申请已知欺诈率(平滑)", "known fraud rate of linked applications, smoothed"),
    "shared_entities": (
        "entities",
        "与同一他人申请共用的最多要素数",
        "most identifiers shared with one other application",
    ),
}

# What the graph counts, in its order: a schema's hash covers it, and an archive says what its log was read by.
STATISTICS = [[*ENTITY_STATS], [*GRAPH_STATS]]
