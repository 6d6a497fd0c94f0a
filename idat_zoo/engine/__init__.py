"""The training loop and what it needs: schedule, precision, state to resume from."""
