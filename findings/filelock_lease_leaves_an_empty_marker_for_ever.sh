#!/usr/bin/env bash
# Library and version: filelock 4.3.1
# Behaviour: a `SoftFileLease` takes over the marker of a holder that was silent for `lease_duration`,
#   but never an empty one, however old it is: filelock before 3.22 held its locks by empty markers.
# What one would guess: whatever its content, a marker that nobody renews is taken over once the
#   lease has run out. A marker is created empty and filled after that, so a power failure or a full
#   stop of the machine between the two can leave a lock that no process ever gets.
# Seen (seconds that a lease of 1 s waits, of at most 6):
#   of a silent holder on another machine: taken over within 3 s
#   of an empty marker: refused after 6 s
# How to run: bash findings/filelock_lease_leaves_an_empty_marker_for_ever.sh (exit 1: it changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check filelock==4.3.1

expected="of a silent holder on another machine: taken over within 3 s
of an empty marker: refused after 6 s"
seen=$("$place/venv/bin/python" - "$place" <<'PY'
import os
import sys
import time
from pathlib import Path

from filelock import SoftFileLease, Timeout

silent = "filelock/2\npid=4711\nhost=another\nmode=lease\ntoken=abc\nduration=1.0\nstart=1\n"
for name, content in {"a silent holder on another machine": silent, "an empty marker": ""}.items():
    marker = Path(sys.argv[1]) / f"{name}.lock"
    marker.write_text(content)
    os.utime(marker, (0, 0))
    lease, begun = SoftFileLease(marker, lease_duration=1.0, heartbeat_interval=0.25), time.time()
    try:
        lease.acquire(timeout=6)
    except Timeout:
        print(f"of {name}: refused after {time.time() - begun:.0f} s")
    else:
        print(f"of {name}: taken over", "within 3 s" if time.time() - begun < 3 else "later")
        lease.release()
PY
)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
