"""Comparison of many runs from one file: methods x seeds x values, run in parallel, and tables.

comparison.py   the file: a base, rows of changes, seeds -> one configuration a run
grid.py         --set key=a,b,c: the rows once more for every value
grid_runs.py    runs of all rows, settings and seeds -> tables of results
schedule.py     planned runs that are not finished, several at once, each resumable
processes.py    processes of the runs
display.py      progress: finished runs and rounds, time left
stored.py       finished runs, found by the hash of their configuration
conditions.py   conditions that rows of one table must share
statistics.py   intervals, paired t, Holm, effect size
verdicts.py     every row against a reference row, in words
better_off.py   shares of clients that are better off, counted
sheet.py        a table as a value, written for terminal, Markdown, LaTeX, CSV and HTML
cells.py        the results of a row -> cells of a table
stream_tables.py  every stream of a model beside the fused prediction
table.py        the tables of a comparison, and the notes below them
terminal.py     the two views of one run or of its seeds, for the terminal
exports.py      the tables of a comparison as Markdown, LaTeX and CSV
recipes.py      a comparison file with the figures of a paper, at full scale or cut down
published_curves.py  a published curve beside a run's: distance, and the curve's own jumps
reproduction.py a recipe's figures beside fedlt's: within tolerance or not
search.py       values to try: all combinations, or proposals of Optuna
sweep.py        a search on data.split: tune, from proposals to the table of trials
tuning.py       values that a search chose, and the lines above a table about them
beside.py       the files beside a table that say so, for those who read tables later
ranking.py      mean ranks over data sets and seeds, and the critical difference
leaderboard.py  finished comparisons, also kept ones -> one entry per data set
board_tables.py the tables, notes and files of a leaderboard
"""
