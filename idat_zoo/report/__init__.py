"""Many results as one report: data first, then text.

    from idat_zoo.results import find_results
    from idat_zoo.report.build import build_report
    from idat_zoo.report.layout import lay_out          sections of text, for any surface
    from idat_zoo.report.markdown import as_markdown

    fields.py   a result's recipe as flat fields, and which of them tell recipes apart
    rows.py     results of one recipe with several seeds -> one row
    means.py    rows of one series over the tasks of a suite -> group means, mean19, mean3
    gain.py     a row with its teacher against the row without, image by image
    notes.py    what makes a comparison uneven
    build.py    all of these -> Report

Nothing mixes silently: recipes are told apart by their hash, and never averaged over.
"""
