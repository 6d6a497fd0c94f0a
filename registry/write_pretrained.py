"""Write registry/pretrained.json from timm's configurations of weights: `make registry`.

With this file, a shelf's backbone may leave image size, mean and std to timm's weights, and the
shelf is read without loading timm.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm

from idat_zoo.hub.weights import weights_repo
from idat_zoo.registry.pretrained import TABLE

SOURCE = (
    "written by command from the pretrained_cfg of timm {version}: all weights that lie under "
    "timm/ARCHITECTURE.TAG on the Hub"
)


def render_pretrained() -> str:
    """The table as JSON: image size, mean and std, each with the weights that it holds for."""
    weights: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        if config is None or config.hf_hub_id != weights_repo(*name.split(".", maxsplit=1)):
            continue
        channels, height, width = config.input_size
        if channels == 3 and height == width:
            weights[height, tuple(config.mean), tuple(config.std)].append(name)
    values = [
        {"img_size": size, "mean": list(mean), "std": list(std), "of": sorted(names)}
        for (size, mean, std), names in sorted(weights.items())
    ]
    version = timm.__version__
    document = {"source": SOURCE.format(version=version), "timm": version, "values": values}
    return json.dumps(document, indent=1) + "\n"


def main() -> None:
    """Write the file."""
    TABLE.write_text(render_pretrained(), encoding="utf-8")
    print(Path(TABLE))


if __name__ == "__main__":
    main()
