"""The words of reason codes, Chinese and English (R2, R22): reasons.yaml, read strictly and once for each policy."""

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from policy.errors import PolicyError

REASONS_PATH = Path(__file__).with_name("reasons.yaml")


def reason_texts(path: Path, raw: bytes, needed: Collection[str] = ()) -> Mapping[str, tuple[str, str]]:
    """Chinese and English text by reason code, from the file's content. Raises PolicyError, also where one lacks."""
    try:
        document = yaml.load(raw, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise PolicyError(path, f"cannot be read: {error}", zh=f"无法读取：{error}") from None
    if not isinstance(document, dict):
        raise PolicyError(
            path, "must be a mapping from reason code to zh and en", zh="必须是原因代码到 zh 与 en 的映射"
        )
    texts = {}
    for code, words in document.items():
        if not isinstance(words, dict) or set(words) != {"zh", "en"}:
            raise PolicyError(path, f"{code}: needs zh and en and nothing else", zh=f"{code}：必须且只能有 zh 与 en")
        if not all(isinstance(text, str) and text for text in words.values()):
            raise PolicyError(path, f"{code}: zh and en must be texts", zh=f"{code}：zh 与 en 必须是文本")
        texts[str(code)] = (words["zh"], words["en"])
    if lacking := sorted(set(needed) - set(texts)):
        zh = f"{lacking[0]}：引擎会给出这个代码，必须有文字"
        raise PolicyError(path, f"{lacking[0]}: the engine says this, it needs words", zh=zh)
    return texts
