"""Visual prompt tuning: P trained tokens beside an image's own.

Jia et al., arXiv:2203.12119; code KMnP/vpt 4410440. Prompts come after the class token, without a
position. `vpt_shallow` inserts them before block 0, and they stay through all blocks: P D
parameters. `vpt_deep` has P prompts of its own for each block, which replace those of the block
before: L P D. With `project` = k they have k numbers each, and one linear layer, shared by all
blocks, maps them to D.

Prompts start uniform within sqrt(6 / (3 p^2 + D)), p the side of a patch, with k for D where they
are projected; the projection's weight is normal of std sqrt(2 / D), its bias uniform within
1 / sqrt(k). So the network does not start as the frozen one. Dropout acts on the prompts; it is off
by default, as in the authors' configuration. The authors choose P for each task from 1 to 200; our
default is 10.

Deep prompts are removed after their block, so they only act as keys and values, through LN(prompt):
their length and mean have no effect. Both are tested against the authors' code, and deep prompts
also against Adapter+'s, which start wider (P for D in the bound). The authors' head starts at a
bias of -4.6, ours at 0.
"""

from idat_zoo.adapters.anatomy import Anatomy
from idat_zoo.adapters.prompts import PromptOptions, Prompts
from idat_zoo.adapters.sites import Place, Site
from idat_zoo.option_words import InBlocks


class DeepPromptOptions(InBlocks, PromptOptions):
    """Options of VPT, deep."""


class VPTShallow(Prompts):
    """Trained tokens beside an image's own, before the first block."""

    name = "vpt_shallow"
    title = "VPT, shallow"
    paper = "arXiv:2203.12119"
    year = 2022
    Options = PromptOptions

    def places_on(self, anatomy: Anatomy) -> frozenset[Place]:
        """Before block 0."""
        return frozenset({Place(0, Site.PROMPT)})


class VPTDeep(Prompts):
    """Trained tokens beside an image's own, others in every block."""

    name = "vpt_deep"
    title = "VPT, deep"
    paper = "arXiv:2203.12119"
    year = 2022
    Options = DeepPromptOptions
