"""Report from run directories: one page, and picture files beside the page (``fedlt report``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedlt.comparing.verdicts import Verdict
from fedlt.errors import writing
from fedlt.machine.installed import installed_version
from fedlt.report.facts import (
    differences_sheet,
    equal_sheet,
    runs_sheet,
    versions_sheet,
    warnings,
)
from fedlt.report.figures import all_pictures
from fedlt.report.finished import Reading, read_runs
from fedlt.report.page import Content, PageSection, render
from fedlt.report.personal_view import beside_sheet
from fedlt.report.picture import Picture
from fedlt.report.style import save, styled
from fedlt.report.summary import introduction, main_sheet, moments_sheet, summary, title
from fedlt.report.verdict import judged, verdict_lines, verdict_sheet

_TERMS = (
    (
        "generic model",
        "The one model that the server holds, tested on all classes alike.",
    ),
    (
        "personal model",
        "A client's own model, tested on the classes that the client holds, in its own "
        "proportions.",
    ),
    (
        "many, medium, few",
        "Classes with many, a middling number of and few training images, all clients together.",
    ),
    (
        "p10, worst",
        "One client in ten does worse than p10; worst is the one that does worst. Both are means "
        "over the seeds; a single client may do worse still.",
    ),
    (
        "gain",
        "Accuracy of a client's own model minus the generic model's, on the client's own "
        "classes; the mean over clients.",
    ),
    (
        "worse off",
        "Share of clients whose own model does worse than the generic one.",
    ),
    (
        "± 95 % interval",
        "If everything were repeated with other seeds, 95 of 100 such intervals would hold "
        "the true mean. It needs at least two seeds.",
    ),
    (
        "seed",
        "A repetition with another split among the clients, other starting weights and other "
        "batches.",
    ),
    (
        "class prior",
        "What the training loss knows about class frequencies: the client's own, or everybody's.",
    ),
    (
        "last_k",
        "The mean of the last few rounds, so that no lucky round is picked.",
    ),
)
_BALANCED = (
    "balanced, accuracy",
    "Balanced is the mean over the classes of the share of a class's images that the model gets "
    "right; accuracy is that share of all images, where classes with many images weigh more. "
    "Classes without images to test on weigh nothing.",
)


def write_report(
    paths: Sequence[Path] | Mapping[str, Sequence[Path]],
    output: Path,
    *,
    figures: Path | None = None,
    against: str = "",
    found: Sequence[Verdict] | None = None,
) -> list[Path]:
    """Return the written files: the page and, with ``figures``, all pictures as PNG and SVG.

    Args:
        paths: Run directories, folders of seeds, or folders of a comparison; or run directories
            by method label.
        output: The file of the page; an existing page is replaced.
        figures: A folder for the pictures.
        against: The reference method of the verdicts; the first method by default.
        found: The verdicts of a command that compared more runs; None: judge these runs.

    Raises:
        FedltError: If the runs cannot be read or compared, or a file cannot be written.
    """
    reading = read_runs(paths)
    refusal = ""
    if found is None:
        found, refusal = judged(reading.methods, against)
    reading = _with_baseline(reading, found)
    with styled():
        pictures = all_pictures(reading.methods)
        text = render(_content(reading, pictures, found, refusal))
        drawn = [] if figures is None else _save_all(pictures, figures)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return [output, *drawn]


def _with_baseline(reading: Reading, found: Sequence[Verdict]) -> Reading:
    """Return the reading with the method marked that the verdicts test the others against."""
    names = {one.against for one in found}
    methods = (replace(one, is_baseline=one.label in names) for one in reading.methods)
    return replace(reading, methods=tuple(methods))


def _save_all(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    saved = (save(one.figure, folder, one.slug, ("png", "svg")) for one in pictures)
    return [path for paths in saved for path in paths]


def _content(
    reading: Reading, pictures: Sequence[Picture], found: Sequence[Verdict], refusal: str
) -> Content:
    methods = reading.methods
    return Content(
        title=title(methods),
        introduction=introduction(reading),
        summary=[*verdict_lines(found), *summary(reading, found)],
        warnings=warnings(reading),
        table=main_sheet(methods),
        moments=moments_sheet(methods),
        beside=beside_sheet(methods),
        verdicts=_verdicts(found, refusal),
        pictures=pictures,
        sections=[_fairness(reading), _reading_help(reading), _provenance(reading)],
        footer=f"Written by fedlt {installed_version()} from finished runs, without training.",
    )


def _verdicts(found: Sequence[Verdict], refusal: str) -> PageSection | None:
    heading = "Is the difference real?"
    if refusal:
        return PageSection("verdicts", heading, refusal, ())
    if not found:
        return None
    seeds = found[0].test.seeds
    paired = f"paired over {seeds} seed{'s' if seeds != 1 else ''}"
    text = (
        f"Every method against {found[0].against}, {paired}: in each both had the same clients, "
        "images and starting weights. Not different: none was shown, there may be one."
    )
    return PageSection("verdicts", heading, text, [(verdict_sheet(found), False)])


def _fairness(reading: Reading) -> PageSection:
    differences = differences_sheet(reading.methods)
    text = "Only the method should differ between compared runs. This is what the files said."
    if len(reading.methods) == 1:
        text = "The settings of the runs."
    sheets = [(equal_sheet(reading.methods), True)]
    if differences is not None:
        sheets.insert(0, (differences, False))
    return PageSection("equal", "What was held equal, and what was not", text, sheets)


def _reading_help(reading: Reading) -> PageSection:
    balanced = reading.methods[0].scored_on.balanced
    terms = _TERMS if balanced else (_TERMS[0], _BALANCED, *_TERMS[1:])
    return PageSection("words", "How to read the numbers", "", (), terms)


def _provenance(reading: Reading) -> PageSection:
    text = (
        "Enough to run it again: the same configuration on the same versions and kind of machine "
        "gives the same bits."
    )
    sheets = [(runs_sheet(reading), True), (versions_sheet(reading), True)]
    return PageSection("runs", "Runs, versions and hardware", text, sheets)
