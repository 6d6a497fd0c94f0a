"""A file of evaluation results as the Hub reads it: one value for each task of a dataset."""

from collections.abc import Iterable, Mapping
from typing import Any

from idat_zoo.errors import HubError

EVAL_RESULTS_FILE = ".eval_results/idat-zoo.yaml"


def write_eval_results(repo: str, entries: Iterable[Mapping[str, Any]]) -> bytes:
    """The file of these entries, once it was read back to the same values.

    An entry has the fields of the library's `EvalResultEntry`; `source_url` is the path of a file
    of the repository, and becomes its address.

    Raises: HubError that names the tasks whose entries would be read back differently.
    """
    import yaml
    from huggingface_hub import (
        EvalResultEntry,
        eval_result_entries_to_yaml,
        hf_hub_url,
        parse_eval_result_entries,
    )

    meant = [
        EvalResultEntry(**{**entry, "source_url": hf_hub_url(repo, entry["source_url"])})
        for entry in entries
    ]
    content: str = yaml.safe_dump(eval_result_entries_to_yaml(meant), sort_keys=False)
    back = parse_eval_result_entries(yaml.safe_load(content))
    if back != meant:
        tasks = ", ".join(one.task_id for one in meant if one not in back)
        raise HubError(f"{EVAL_RESULTS_FILE} would not be read back as it is meant: {tasks}.")
    return content.encode()
