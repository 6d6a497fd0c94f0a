"""Upload and fetch as the commands do, without what they load for it.

    python hub_client.py upload ORG/NAME FOLDER [TAG]    prints the commit
    python hub_client.py upload-new ORG/NAME FOLDER      as one who saw no repository there
    python hub_client.py fetch REFERENCE                 prints the folder

An error looks as the commands' does, so that many faults can be tried in little time.
"""

import sys
from pathlib import Path

from idat_zoo.cli import screen
from idat_zoo.errors import ZooError
from idat_zoo.hub.download import fetch, resolve
from idat_zoo.hub.head import Head, read_head
from idat_zoo.hub.references import parse_reference
from idat_zoo.hub.upload import upload

FETCHED = ("config.json", "adapter_model.safetensors")


def main(what: str, place: str, *more: str) -> int:
    try:
        if what in ("upload", "upload-new"):
            folder, tag = Path(more[0]), more[1] if len(more) > 1 else ""
            contents = {path.name: path.read_bytes() for path in folder.iterdir()}
            head = Head(repo=place) if what == "upload-new" else read_head(place)
            print(upload(head, contents, message="by the tests", tag=tag).commit)
        else:
            reference = parse_reference(place)
            assert reference is not None
            print(fetch(resolve(reference), FETCHED))
    except ZooError as error:
        screen.print_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
