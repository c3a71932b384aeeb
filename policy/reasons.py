"""The words of reason codes, Chinese and English (R2, R22): reasons.yaml, read strictly once per policy."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from policy.jdm import PolicyError

REASONS_PATH = Path(__file__).with_name("reasons.yaml")


def reason_texts(path: Path = REASONS_PATH) -> Mapping[str, tuple[str, str]]:
    """Chinese and English text by reason code. Raises PolicyError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise PolicyError(path, f"cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise PolicyError(path, "must be a mapping from reason code to zh and en")
    texts = {}
    for code, words in document.items():
        if not isinstance(words, dict) or set(words) != {"zh", "en"}:
            raise PolicyError(path, f"{code}: needs zh and en and nothing else")
        if not all(isinstance(text, str) and text for text in words.values()):
            raise PolicyError(path, f"{code}: zh and en must be texts")
        texts[str(code)] = (words["zh"], words["en"])
    return texts
