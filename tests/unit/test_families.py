"""Every law of `tests/laws.py`, for every family."""

import laws
import pytest
from families import all_facts, facts_of
from zoo import FOLDER

from idat_zoo.adapters import ADAPTERS

each_family = pytest.mark.parametrize("family", ADAPTERS)


def test_facts_are_known_of_every_family_and_of_no_other() -> None:
    assert set(all_facts()) == set(ADAPTERS), "each has `Facts` in a module of tests/families"


def test_every_golden_file_has_a_family() -> None:
    used = {case.file for family in ADAPTERS for case in facts_of(family).golden}
    assert used <= {path.stem for path in FOLDER.glob("*.safetensors")}


@each_family
def test_it_is_the_authors(family: str) -> None:
    laws.is_the_authors(family)


@each_family
def test_it_merges_as_the_authors(family: str) -> None:
    laws.merges_as_the_authors(family)


@each_family
def test_it_drops_where_the_authors_do(family: str) -> None:
    laws.drops_where_the_authors_do(family)


@each_family
def test_it_counts_as_the_formula_says(family: str) -> None:
    laws.counts_as_the_formula_says(family)


@each_family
def test_it_starts_as_the_authors_do(family: str) -> None:
    laws.starts_as_the_authors_do(family)


@each_family
def test_it_starts_as_the_frozen_network_where_it_says_so(family: str) -> None:
    laws.starts_as_the_frozen_network_where_it_says_so(family)
