"""The names of the files in a run's folder, which `runs/folder.py` describes. Free of torch."""

RECIPE_FILE = "recipe.toml"
SPLIT_FILE = "split.csv"
LOG_FILE = "log.jsonl"
CALL_FILE = "call.json"
FAULT_FILE = "fault.json"
ENSEMBLE_FOLDER = "ensemble"
RESULT_FILE = "result.json"
TENSORBOARD_FOLDER = "tensorboard"
NOTHING_TRAINED = {RECIPE_FILE, SPLIT_FILE, CALL_FILE, FAULT_FILE}
"""The files of a run that has not completed its first epoch."""
