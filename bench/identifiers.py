"""Identifiers of the synthetic world in the form they have in life, 身份证 and 统一社会信用代码 among them.

Each is drawn at random without repetition, so that neither its value nor its order tells who is in a ring.
"""

from collections.abc import Callable, Iterator
from datetime import date, timedelta

import numpy as np

from bench.people import Ints, People, part
from bench.population import Applications

_EPOCH = date(1970, 1, 1)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

_REGIONS = (
    "110105", "110108", "120101", "130102", "210102", "220102", "230102", "310104", "310115", "320106",
    "320505", "330106", "330203", "340103", "350203", "370102", "410105", "420106", "430104", "440106",
    "440305", "450103", "500103", "510104", "510107", "520103", "530102", "610113", "620102", "650102",
)  # fmt: skip
_DISTRICTS = ("浦东新区", "海淀区", "南山区", "天河区", "武侯区", "江干区", "雁塔区", "洪山区", "岳麓区", "姑苏区")
_ROADS = ("人民路", "中山路", "解放路", "建设路", "文化路", "和平路", "新华路", "长江路", "黄河路", "胜利路")
_HOMES = (0, len(_DISTRICTS) * len(_ROADS) * 900 * 2500)
_CODE_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"  # GB 32100-2015, of company codes
_VIN_ALPHABET = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"


class Identifiers:
    """Identifiers by integer: `applicants` of a person, `applications` of a row, `vehicles` of a vin, `companies`."""

    def __init__(self, seed: int, people: People, drawn: Applications) -> None:
        self.applicants = _applicants(seed, people)
        self.applications = [f"{n:016x}" for n in _numbers(part(seed, "application ids"), len(drawn), 0, 1 << 62)]
        self.vehicles = [_vin(n) for n in _numbers(part(seed, "vins"), len(people), 0, 100 * 33**11)]
        self.companies = _companies(seed, people)
        self._company = drawn.company
        phones = np.concatenate([drawn.phone[:, None], drawn.contacts], axis=1)
        texts = _texts(seed, "phone", phones, (13 * 10**9, 20 * 10**9), str)
        kinds = ("phone", *("contact",) * drawn.contacts.shape[1])
        self._columns = [(kind, phones[:, i].tolist(), texts) for i, kind in enumerate(kinds)]
        premises = np.where(drawn.business, drawn.companies.premises[drawn.company], -1)
        for kind, column, span, text in (
            ("device", drawn.device, (0, 1 << 62), "{:016x}".format),
            ("card", drawn.card, (10**15, 10**17), "62{:017d}".format),
            ("ip", drawn.ip, (36 << 24, 96 << 24), _ip),
            ("address", drawn.address, _HOMES, _address),
            ("employer", drawn.employer, (10**15, 10**16), "91{:016d}".format),
            ("company_address", premises, _HOMES, _address),
            ("dealer", drawn.dealer, (10_000, 1_000_000), "D{:06d}".format),
            ("officer", drawn.officer, (10_000, 10_000_000), "O{:07d}".format),
        ):
            self._columns.append((kind, column.tolist(), _texts(seed, kind, column, span, text)))

    def entities(self, row: int) -> Iterator[tuple[str, str]]:
        """Type and identifier of what an application names; whoever owns the company works for it."""
        company = self.companies[self._company[row]] if self._company[row] >= 0 else ""
        if company:
            yield "company", company
        for kind, column, text in self._columns:
            if column[row] >= 0:
                yield kind, company if company and kind == "employer" else text[column[row]]


def _numbers(rng: np.random.Generator, count: int, low: int, high: int) -> list[int]:
    """`count` different whole numbers from low to high - 1, in random order."""
    drawn = np.unique(rng.integers(low, high, count + count // 2 + 16))
    return [int(n) for n in rng.permutation(drawn)[:count]]


def _texts(seed: int, kind: str, used: Ints, span: tuple[int, int], text: Callable[[int], str]) -> dict[int, str]:
    """Identifier of each integer in use."""
    integers = np.unique(used[used >= 0]).tolist()
    numbers = _numbers(part(seed, f"{kind} ids"), len(integers), *span)
    return dict(zip(integers, map(text, numbers), strict=True))


def _applicants(seed: int, people: People) -> list[str]:
    """身份证: region, date of birth, sequence (odd for men), check digit of GB 11643-1999."""
    rng = part(seed, "applicant ids")
    order = rng.integers(0, 500, len(people))
    taken: set[str] = set()
    texts = []
    for region, born, male, sequence in zip(
        people.region.tolist(), people.birth_day.tolist(), people.male.tolist(), order.tolist(), strict=True
    ):
        born_on = (_EPOCH + timedelta(days=born)).strftime("%Y%m%d")
        while (digits := f"{_REGIONS[region]}{born_on}{sequence * 2 + male:03d}") in taken:
            sequence = (sequence + 1) % 500
        taken.add(digits)
        texts.append(digits + "10X98765432"[sum(int(d) * w for d, w in zip(digits, _WEIGHTS, strict=True)) % 11])
    return texts


def _companies(seed: int, people: People) -> list[str]:
    """统一社会信用代码 of companies: registrar and kind, region, 组织机构代码 (GB 11714-1997), check character."""
    rng = part(seed, "company ids")
    numbers = _numbers(rng, len(people), 10**7, 10**8)
    regions = rng.integers(0, len(_REGIONS), len(people)).tolist()
    return [credit_code(f"91{_REGIONS[region]}{number}") for region, number in zip(regions, numbers, strict=True)]


def credit_code(start: str) -> str:
    """The company code of 18 characters that begins with these 16."""
    organisation = sum(int(d) * w for d, w in zip(start[8:], (3, 7, 9, 10, 5, 8, 4, 2), strict=True)) % 11
    start += "0X987654321"[organisation]
    weighted = sum(_CODE_ALPHABET.index(c) * 3**i for i, c in enumerate(start))
    return start + _CODE_ALPHABET[-weighted % 31]


def _vin(number: int) -> str:
    letters = ""
    for _ in range(11):
        number, digit = divmod(number, len(_VIN_ALPHABET))
        letters += _VIN_ALPHABET[digit]
    return f"LSVA{letters}{number:02d}"


def _ip(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def _address(number: int) -> str:
    number, district = divmod(number, len(_DISTRICTS))
    number, road = divmod(number, len(_ROADS))
    house, room = divmod(number, 2500)
    return f"{_DISTRICTS[district]}{_ROADS[road]}{house + 1}号{room + 101}室"
