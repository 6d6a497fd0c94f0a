"""What lies in a run's folder, by name: `run_folder.py` says what each is. Torch-free."""

RECIPE_FILE = "recipe.toml"
SPLIT_FILE = "split.csv"
LOG_FILE = "log.jsonl"
CALL_FILE = "call.json"
FAULT_FILE = "fault.json"
RESULT_FILE = "result.json"
NOTHING_TRAINED = {RECIPE_FILE, SPLIT_FILE, CALL_FILE, FAULT_FILE}
"""What there is before the first epoch is through."""
