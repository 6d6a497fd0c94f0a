"""How the HTML page says what was run, so that it can be repeated."""

import re

from page_of_inverse import MSE, inverse, page


def test_each_recipe_has_the_name_of_its_method() -> None:
    _, _, entries = inverse()
    text = page()
    for entry in entries:
        recipe_hash = entry.group.results[0][1].recipe_hash[:16]
        found = re.search(rf"<td[^>]*>([^<]*)</td><td[^>]*><code>{recipe_hash}</code>", text)
        assert found is not None
        assert found[1] == entry.method
    assert MSE in {entry.method for entry in entries}
