#!/usr/bin/env bash
# Library and version: huggingface_hub 2.4.0
# Behaviour: `HfApi.run_uv_job` looks for each word of `script_args` in the working folder of the caller.
#   A word that happens to be a file there is uploaded into a bucket, and the job gets its path in /data
#   in place of the word. A word that ends in .toml, .py, .sh, .yaml or .yml and is no file there raises
#   FileNotFoundError before any request, also if it is a path that exists in the job alone.
# What one would guess: `script_args` reach the script as they are, and only `script` may be a local file.
#   So the same call submits another job from another folder.
# Seen (the first request to a server that refuses everything; the word is `train` or /study/plan.toml):
#   no file of that name: POST /api/jobs/someone
#   a file of that name: POST /api/buckets/someone/jobs-artifacts
#   a path of the job: FileNotFoundError: /study/plan.toml
# How to run: bash findings/hub_run_uv_job_takes_words_for_files.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0

cat > "$place/submit.py" <<'PYTHON'
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

asked = []


class Refusing(BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append(f"POST {self.path}")
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
warnings.simplefilter("ignore")

from huggingface_hub import HfApi  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError  # noqa: E402


def submit(*words):
    asked.clear()
    try:
        HfApi().run_uv_job("tool", script_args=list(words), namespace="someone", token="hf_none")
    except HfHubHTTPError:
        return asked[0]
    except FileNotFoundError as error:
        return f"FileNotFoundError: {error}"


print("no file of that name:", submit("train"))
Path("train").touch()
print("a file of that name:", submit("train"))
print("a path of the job:", submit("/study/plan.toml"))
PYTHON

expected="no file of that name: POST /api/jobs/someone
a file of that name: POST /api/buckets/someone/jobs-artifacts
a path of the job: FileNotFoundError: /study/plan.toml"
mkdir "$place/work"
seen=$(cd "$place/work" && "$place/venv/bin/python" "$place/submit.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
