"""An adapted network as an ONNX graph, for runtimes without torch.

Any family, nothing merged: uint8 images `[B, 3, S, S]` in, logits `[B, K]` out, normalised inside.
torch's own exporter makes it; onnxruntime must give the same logits before it is written.

Shape letters: B batch, S input size, K classes.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import torch

from idat_zoo import files
from idat_zoo.checkpoint.loading import Checkpoint
from idat_zoo.checkpoint.probe import probe_images, probe_logits
from idat_zoo.errors import CheckpointError, UsageError

MODEL_FILE = "model.onnx"
LABELS_FILE = "labels.txt"
NAMES_KEY = "class_names"
"""The key of the graph's metadata that holds the classes' names: a JSON list in logits' order."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""The largest difference of logits, as a fraction of the largest; the order of sums differs."""


def write_onnx(checkpoint: Checkpoint, folder: Path) -> float:
    """Write the graph and a text file with one class name a line; returns the largest difference.

    Raises: UsageError for an ensemble, and where one of onnx, onnxscript and onnxruntime is not
    installed;
    CheckpointError where the logits are not the same; what `whole_folder` raises.
    """
    network, config = checkpoint.single_network("no graph is written of several"), checkpoint.config
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"an ONNX export needs {', '.join(missing)}.", hint=f"pip install {' '.join(missing)}"
        )
    import onnxruntime

    images, expected = probe_images(network), probe_logits(network)
    program = torch.onnx.export(
        torch.nn.Sequential(network).eval(),  # whose `mean` is no mean that is computed
        (images,),
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None, "dynamo=True returns a program"
    names = config.recipe.task.class_names
    if names:
        program.model.metadata_props[NAMES_KEY] = json.dumps(names, ensure_ascii=False)
    with files.whole_folder(folder) as place:
        program.save(place / MODEL_FILE)
        session = onnxruntime.InferenceSession(
            place / MODEL_FILE, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"images": images.numpy()})
        off = (torch.from_numpy(found) - expected).abs().max() / expected.abs().max()
        difference: float = off.item()
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"the ONNX graph's logits differ by {difference:.1e} of their largest; up to "
                f"{TOLERANCE:.0e} is expected. Nothing was written."
            )
        if names:
            lines = [" ".join(name.splitlines()) for name in names]
            (place / LABELS_FILE).write_text("".join(f"{line}\n" for line in lines))
    return difference
