"""Many runs from one file: methods x seeds x values, scheduled over the cores, and their table.

comparison.py   the file: a base, rows of changes, seeds -> one configuration a run
grid.py         --set key=a,b,c: the rows once more for every value
schedule.py     run what is planned and not finished, several at once, each resumable
processes.py    the processes that they run in
display.py      runs and rounds that are done, and the time that is left
stored.py       finished runs, found by the hash of their configuration
conditions.py   what rows of one table must have in common
statistics.py   intervals, paired t, Holm, effect size
verdicts.py     every row against a reference row, in words
better_off.py   how many clients are better off, counted
sheet.py        a table as a value; terminal, Markdown, LaTeX, CSV and HTML of it
cells.py        a row's results -> its cells
stream_tables.py  every stream of a model beside the fused prediction
table.py        the tables of a comparison, and the notes below them
terminal.py     the two views of one run or of its seeds, for the terminal
exports.py      the tables of a comparison as Markdown, LaTeX and CSV
recipes.py      a comparison file with the figures of a paper, at full scale or cut down
reproduction.py a recipe's figures beside ours: within tolerance or not
search.py       what a search tries: all combinations, or what Optuna proposes
sweep.py        a search on data.split: tune, from proposals to the table of trials
"""
