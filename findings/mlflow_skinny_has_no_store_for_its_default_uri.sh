#!/usr/bin/env bash
# Library and version: mlflow-skinny 3.17.2
# Behaviour: without a tracking URI, MlflowClient() is refused by mlflow's own default, which is SQLite: that
#   store needs SQLAlchemy, which mlflow-skinny does not install. The message speaks of a model registry, and
#   lists `file` as supported; a `file:` store is refused too, with the advice to take SQLite. The file store
#   works with MLFLOW_ALLOW_FILE_STORE=true.
# What one would guess: the default works, or the message names the package that is missing.
# Seen:
#   no URI: UnsupportedModelRegistryStoreURIException, names sqlalchemy: False
#   file: MlflowException, advises sqlite: True
#   file, allowed: created
# How to run: bash findings/mlflow_skinny_has_no_store_for_its_default_uri.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2
cd "$place"

cat > "$place/store.py" <<'PYTHON'
import os
import sys

from mlflow import MlflowClient


def tried(label: str, about: str, word: str) -> None:
    try:
        MlflowClient().create_experiment("first")
        print(f"{label}: created")
    except Exception as error:
        print(f"{label}: {type(error).__name__}, {about} {word}: {word in str(error).lower()}")


case = sys.argv[1]
if case == "default":
    tried("no URI", "names", "sqlalchemy")
else:
    os.environ["MLFLOW_TRACKING_URI"] = "file:./store"
    tried("file" if case == "file" else "file, allowed", "advises", "sqlite")
PYTHON

expected="no URI: UnsupportedModelRegistryStoreURIException, names sqlalchemy: False
file: MlflowException, advises sqlite: True
file, allowed: created"
unset MLFLOW_TRACKING_URI MLFLOW_ALLOW_FILE_STORE
python="$place/venv/bin/python"
seen="$("$python" store.py default 2> errors.txt)
$("$python" store.py file 2> errors.txt)
$(MLFLOW_ALLOW_FILE_STORE=true "$python" store.py allowed 2> errors.txt)"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
