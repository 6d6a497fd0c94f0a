#!/usr/bin/env bash
# Library and version: huggingface_hub 2.4.0
# Behaviour: EvalResults of one ModelCardData that agree in task type, dataset type, config, split and
#   revision become one entry of the model-index. The entry takes dataset name, dataset args, task name
#   and source of the first; those of the others are dropped without a word.
# What one would guess: each EvalResult comes back from the card as it was, or is refused.
# Seen: (the second result has the first one's arguments and source)
#   0.9 {'seed': 0} run 0 https://example.org/0
#   0.91 {'seed': 0} run 0 https://example.org/0
# How to run: bash findings/hub_card_scores_share_the_first_source.sh (exit 1: the behaviour changed)
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0

cat > "$place/card.py" <<'PYTHON'
from huggingface_hub import EvalResult, ModelCard, ModelCardData

results = [
    EvalResult(
        task_type="image-classification",
        dataset_type="digits",
        dataset_name="Digits",
        dataset_args={"seed": seed},
        metric_type="accuracy",
        metric_value=0.9 + seed / 100,
        source_name=f"run {seed}",
        source_url=f"https://example.org/{seed}",
    )
    for seed in (0, 1)
]
data = ModelCardData(model_name="tiny", eval_results=results)
for result in ModelCard(f"---\n{data.to_yaml()}\n---\n").data.eval_results:
    print(result.metric_value, result.dataset_args, result.source_name, result.source_url)
PYTHON

expected="0.9 {'seed': 0} run 0 https://example.org/0
0.91 {'seed': 0} run 0 https://example.org/0"
seen=$("$place/venv/bin/python" "$place/card.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed; expected:"; echo "$expected"; exit 1; }
