#!/usr/bin/env bash
# Library and version: huggingface_hub 2.4.0 (numpy 2.3.5)
# Behaviour: ModelCardData.to_yaml() writes a numpy.float64 score with a Python tag, and ModelCard()
#   cannot read that card again. numpy.float64 is a subclass of float, and scikit-learn's metrics
#   return it.
# What one would guess: the number is written as a number, or refused where the card is written.
# Seen:
#   a float: True
#   written: True
#   read: ConstructorError
# How to run: bash findings/hub_card_numpy_score_cannot_be_read.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0 numpy==2.3.5

cat > "$place/card.py" <<'PYTHON'
import numpy
from huggingface_hub import EvalResult, ModelCard, ModelCardData

score = numpy.float64(0.9)
print("a float:", isinstance(score, float))
result = EvalResult(
    task_type="image-classification",
    dataset_type="digits",
    dataset_name="Digits",
    metric_type="accuracy",
    metric_value=score,
)
text = ModelCardData(model_name="tiny", eval_results=[result]).to_yaml()
print("written:", "!!python/object/apply:numpy" in text)
try:
    ModelCard(f"---\n{text}\n---\n")
    print("read: yes")
except Exception as error:
    print("read:", type(error).__name__)
PYTHON

expected="a float: True
written: True
read: ConstructorError"
seen=$("$place/venv/bin/python" "$place/card.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
