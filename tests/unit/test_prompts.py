"""Prompts on every kind that takes them: they join attention as computed by hand.

In float64, within 1e-12, as the test computes it in another order.
"""

from typing import Any, ClassVar

import pytest
import torch
from kinds import FORMS, images_of, tiny
from on_kinds import TOLERANCE, assert_together_as_alone, difference, known, on, plain
from torch import Tensor
from toy_families import Prompted, prompted_by_hand

from idat_zoo.adapters.sites import Site
from idat_zoo.adapters.tensors import Tensors
from idat_zoo.backbones.build import build_network
from idat_zoo.errors import UsageError

TAKE_PROMPTS = [form for form, own in FORMS.items() if own.kind in ("vit", "eva", "beit")]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("form", TAKE_PROMPTS)
def test_prompts_stand_behind_the_prefix_unturned_and_unbiased(form: str, deep: bool) -> None:
    network = on(known(form), Prompted(count=3, deep=deep))
    prompts = {i: network.local(i)["prompt"] for i in range(2) if "prompt" in network.local(i)}
    assert len(prompts) == 1 + deep
    images = images_of(form, 2)
    with torch.no_grad():
        found = network.features(images)
        expected = prompted_by_hand(network.body, images, prompts, 3)
    assert difference(found, expected) < TOLERANCE
    assert difference(found, plain(form, images)) > 1e-3
    network(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.trainable().values())


def test_average_pooling_leaves_prompts_out() -> None:
    network = on(known("average pooling"), Prompted(count=4))
    entering: list[Tensor] = []
    hook = network.body.fc_norm.register_forward_pre_hook(lambda m, args: entering.append(args[0]))
    with torch.no_grad():
        network.features(images_of("average pooling", 2))
    hook.remove()
    last: list[Tensor] = []

    class Watched(Prompted):
        sites: ClassVar = frozenset({Site.PROMPT, Site.AFTER_MLP})

        def apply(
            self, site: Site, tensors: Tensors, x: Tensor, y: Tensor, **others: Any
        ) -> Tensor:
            last.append(y)
            return y

    with torch.no_grad():
        on(known("average pooling"), Watched(count=4)).features(images_of("average pooling", 2))
    stream = last[-1]
    assert stream.shape[1] == 1 + 4 + 4
    assert difference(entering[0], stream[:, 5:].mean(1)) < TOLERANCE


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "form", ["vit", "siglip", "eva02 tiny", "dinov3", "rope mixed", "beit", "beit shared bias"]
)
def test_prompts_of_two_tasks_stack(form: str, deep: bool) -> None:
    networks = [on(known(form), Prompted(deep=deep), seed=seed) for seed in (0, 1)]
    assert_together_as_alone(form, networks)


@pytest.mark.parametrize("form", ["swin", "swinv2", "convnext"])
def test_a_backbone_that_takes_no_prompts_refuses_them_by_name(form: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_network(
            known(form),
            Prompted(),
            num_classes=5,
            normalisation="imagenet",
            seed=0,
            role="student",
        )
    told = f"{caught.value.message} {caught.value.hint}"
    assert "'prompted'" in told
    assert f"'{tiny(form).name}'" in told
    assert "it has no prompt" in told
