"""Runs: their planning, inputs, training, selection and folders. A run is a recipe with a seed.

`many.run` trains one recipe and `many.run_many` several. `plan.plan` gives, before any training,
the folder of each run and the inputs that are missing.
"""
