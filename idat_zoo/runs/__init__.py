"""Runs: what they need, how they are trained and selected, and the folders that they leave.

`many.run` trains one recipe and `many.run_many` several; `plan.plan` says beforehand where each
run goes and what it still needs.
"""
