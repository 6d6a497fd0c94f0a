#!/usr/bin/env bash
# Library and version: submitit 1.5.4
# Behaviour: on a cluster that keeps no accounts (sacct fails), a job that was killed stays UNKNOWN and is never
#   done, so that Job.result() waits for ever. Only sacct is asked; squeue, which would show the end, is not.
# What one would guess: a job that the cluster has ended is done, whatever accounts it keeps.
# Seen (sacct and squeue are scripts that answer as Slurm 22.05 without accounts does):
#   sacct asked: True
#   squeue asked: False
#   state UNKNOWN, done False
# How to run: bash findings/submitit_without_accounts_never_sees_a_killed_job.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check submitit==1.5.4

mkdir "$place/bin"
printf '#!/bin/sh\ntouch %s/sacct_asked\necho "Slurm accounting storage is disabled" >&2\nexit 1\n' "$place" \
  > "$place/bin/sacct"
printf '#!/bin/sh\ntouch %s/squeue_asked\necho "7 CANCELLED"\n' "$place" > "$place/bin/squeue"
printf '#!/bin/sh\n' > "$place/bin/srun"
chmod +x "$place"/bin/*

cat > "$place/watch.py" <<'PYTHON'
import sys
from pathlib import Path

from submitit.slurm.slurm import SlurmJob

place = Path(sys.argv[1])
job = SlurmJob(folder=place / "logs", job_id="7")
done = job.done(force_check=True)
for program in ("sacct", "squeue"):
    print(f"{program} asked: {(place / f'{program}_asked').exists()}")
print(f"state {job.state}, done {done}")
PYTHON

expected="sacct asked: True
squeue asked: False
state UNKNOWN, done False"
seen=$(PATH="$place/bin:$PATH" "$place/venv/bin/python" "$place/watch.py" "$place" 2> "$place/errors" | grep -v 'submitit WARNING') ||
  { cat "$place/errors"; exit 1; }
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
