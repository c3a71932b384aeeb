"""Structs of a .cuh as rows of 8-byte words. Fields are read from the source, so only that states a layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
_TYPES = {
    "i64": np.int64, "u64": np.uint64, "int": np.int32, "i8": np.int8, "u8": np.uint8, "float": np.float32,
    "double": np.float64,
}  # fmt: skip
_FIELD = re.compile(r"^\s*(?:const )?(\w+) ((?:\*?\w+(?:, )?)+);", re.MULTILINE)


@dataclass(frozen=True)
class Struct:
    """fields: by name in order, the dtype that a pointer points to, or None for an integer of the struct itself."""

    fields: Mapping[str, Any]

    @classmethod
    def read(cls, source: Path, name: str) -> "Struct":
        """The struct of that name in a source file. Raises ValueError where there is none."""
        found = re.search(rf"struct {name} {{(.*?)\n}};", source.read_text(), re.DOTALL)
        if found is None:
            raise ValueError(f"{source.name}: no struct {name}")
        fields = {}
        for kind, names in _FIELD.findall(found[1]):
            for field in names.split(", "):
                fields[field.lstrip("*")] = np.dtype(_TYPES[kind]) if field.startswith("*") else None
        return cls(fields)

    def check(self, name: str, dtype: Any) -> None:
        """Raises TypeError where the field points to another dtype, KeyError where there is no such field."""
        if self.fields[name] != dtype:
            raise TypeError(f"{name}: {self.fields[name]} expected, {dtype} given")

    def words(self, given: Mapping[str, Any], address: Any) -> NDArray[np.uint64]:
        """uint64 [fields]: `address(array)` of each array, integers and addresses as they are, 0 for what is not given.

        Raises TypeError for an array that is not contiguous or of another dtype than the field's, KeyError for what is
        no field.
        """
        if unknown := set(given) - set(self.fields):
            raise KeyError(f"no fields: {sorted(unknown)}")
        words = []
        for name in self.fields:
            value = given.get(name, 0)
            if not isinstance(value, int):
                self.check(name, value.dtype)
                if not value.flags.c_contiguous:
                    raise TypeError(f"{name}: is not contiguous")
                value = address(value)
            words.append(value)
        return np.array(words, dtype=np.uint64)
