"""Studies: many runs that answer one question, planned once, trained, and compared.

A study file (TOML) names axes: tasks, adapters, distillation terms, controls, seeds and values.
`idat_zoo.registry.studies` reads it into a `design.Study`. `planning` makes the plan, a
`plan.StudyPlan` that is stored in the study's folder, and `train` trains the runs of a plan.
"""
