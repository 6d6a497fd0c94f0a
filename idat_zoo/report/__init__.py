"""Reports: tables and sentences about many results, built as data and then laid out as text.

    from idat_zoo.results import find_results
    from idat_zoo.report.build import build_report
    from idat_zoo.report.layout import lay_out          sections of text, for any surface
    from idat_zoo.report.markdown import as_markdown

    cells.py        a section of text, and numbers and names as text
    fields.py       the recipe of a result as flat fields, and those in which recipes differ
    rows.py         results of one recipe with several seeds -> one row
    benchmark.py    the tasks of a suite by group, and named means of numbers by task
    means.py        rows of one series over the tasks of a suite -> group means, mean19, mean3
    predictions.py  the stored predictions of a run
    gain.py         a row with its teacher against the row without, image by image
    against.py      published rows beside ours, and why they do not compare
    inflation.py    what selecting the epoch on test adds in published runs
    ranks.py        average ranks of methods over tasks, with a critical difference
    sign_flips.py   the p-value of a mean gain over tasks and seeds
    effect.py       the size of a gain by its spread over tasks, with a bootstrap over tasks
    notes.py        warnings about images and about uneven comparisons
    build.py        all of these -> Report

Results of different recipes, told apart by their hash, are never averaged. None of these modules
loads torch, unless the options of adapters are read from their classes (`fields.class_options`).
"""
