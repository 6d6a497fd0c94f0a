"""All that the laws of the families are not asked of, with the reason, as one table.

The reasons stand in `tests/families`, each beside its family. `left_out.md` is this table as it
was last agreed on, so that one more exception shows in a diff:

    python tests/left_out.py > tests/left_out.md
"""

from collections.abc import Iterator

from families import UNUSED, Facts, all_facts

Row = tuple[str, str, str]


def table() -> str:
    """Markdown: the family, what is left out, why."""
    rows = [("family", "left out", "why"), ("---", "---", "---"), *_unused()]
    for family, facts in sorted(all_facts().items()):
        rows += [(family, *row) for row in _left_out(facts)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _unused() -> Iterator[Row]:
    for case, why in sorted(UNUSED.items()):
        yield "", f"golden case {case}", why


def _left_out(facts: Facts) -> Iterator[tuple[str, str]]:
    for why in dict.fromkeys(form.why for form in facts.forms):
        yield "authors' file (a closed form instead)", why
    for case in facts.golden:
        for probe, why in sorted(case.unprobed.items()):
            yield f"probe {probe} of {case.id}", why
        for tensor, why in sorted(case.fixed.items()):
            yield f"gradient of {tensor} in {case.id}", why
        if case.unmerged:
            yield f"merged weight of {case.id}", case.unmerged
    if facts.unpublished:
        yield "count as published", facts.unpublished
    if facts.alone:
        yield "stacking", facts.alone
    if facts.alike:
        yield "stacking of unlike ranks", facts.alike
    if facts.outside:
        yield "option blocks", facts.outside
    for why in sorted({*facts.unmerged.values()}):
        into = sorted(name for name, told in facts.unmerged.items() if told == why)
        yield f"merging into {', '.join(into)}", why.rstrip(",")
    if facts.refused_by:
        yield "kinds and forms", f"refused by {', '.join(sorted(facts.refused_by))}"


if __name__ == "__main__":
    print(table(), end="")
