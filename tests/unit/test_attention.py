"""The site `attention` on every kind: an adapter is given all that attention is computed from.

In float64, within 1e-12, as the test computes it in another order.
"""

import pytest
from kinds import FORMS, images_of
from on_kinds import TOLERANCE, assert_together_as_alone, difference, known, on, plain
from toy_families import Attending, PromptedAttending, prompted_by_hand

from idat_zoo.adapters.sites import Site

ATTENDING = [form for form in FORMS if Site.ATTENTION in known(form).anatomy.sites]


def test_attention_is_a_site_wherever_it_is_fused() -> None:
    without = {FORMS[form].kind for form in FORMS.keys() - set(ATTENDING)}
    assert without == {"swinv2", "convnext"}


@pytest.mark.parametrize("form", ATTENDING)
def test_attention_is_handed_all_that_it_is_computed_from(form: str) -> None:
    images = images_of(form, 2)
    found = on(known(form), Attending()).features(images)
    assert difference(found, plain(form, images)) < TOLERANCE


@pytest.mark.parametrize("form", ["vit", "eva02 tiny", "beit", "beit shared bias"])
def test_attention_is_handed_the_bias_of_prompts_too(form: str) -> None:
    images = images_of(form, 2)
    network = on(known(form), PromptedAttending())
    prompts = {0: network.local(0)["prompt"]}
    expected = prompted_by_hand(network.body, images, prompts, 3)
    assert difference(network.features(images), expected) < TOLERANCE


@pytest.mark.parametrize("form", ["vit", "dinov3", "beit", "beit shared bias", "swin"])
def test_attention_of_two_tasks_stacks(form: str) -> None:
    networks = [on(known(form), Attending(), seed=seed, noise=0.5) for seed in (0, 1)]
    assert_together_as_alone(form, networks)
