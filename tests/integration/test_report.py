"""The report: complete, self-contained, accessible, the same bytes of the same results, safe from what they say."""

from __future__ import annotations

import csv
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Call
from synthetic_store import SyntheticStore

from lthbench.analysis.claims.verdict import SILENT
from lthbench.analysis.figures import FAMILIES, Measured
from lthbench.analysis.figures.style import figure_style
from lthbench.analysis.quantity import interval_text
from lthbench.analysis.report.contents import gather
from lthbench.analysis.report.latex import latex_text
from lthbench.analysis.report.svg import FORMATS
from lthbench.analysis.report.write import write_report
from lthbench.analysis.table import results_table, summarise
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.store import Store

TINY_SUITE = Path("suites/tiny.yaml")
SUITES = Path(__file__).parents[2] / "suites"
EVERYTHING = """\
title: "<script>alert('x')</script> $\\\\frac$ & 100 % of \\"it_\\""
replicates: 3
claims: [CLAIMS]
pairs:
  tiny:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 300}
    recipe:
      steps: 3ep
      batch_size: 64
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}
    arms:
      early: {class: early}
      late: {class: late, recipe: {optimizer: {lr: 0.2}}}
    experiments:
      imp: {levels: 3}
      rewound: {kind: imp, levels: 2, rewind: 1ep, arms: [early]}
      lr-rewinding: {levels: 2}
      controls: {levels: [1, 2, 3]}
      crossed-masks: {levels: [2]}
      stability: {spawns: [0it, 1ep], children: 3, points: 5, statistics: [interpolate, recompute]}
      level-barriers: {levels: [1, 2, 3], points: 5}
      onset: {grid: [0it, 2it, 1ep, 2ep], points: 5, statistics: [interpolate, recompute]}
      sensitivity: {grid: [0it, 1ep], vary: {optimizer.lr: [0.01, 0.1], batch_size: [32]}, points: 5}
      aimp: {levels: [1, 2], budgets: [1, 0.5]}
      regulariser:
        strengths: [0.001, 0.01]
        weight_decay: [kept, replaced]
        controls: [weight-decay, other-init, early-stopping, low-lr]
        levels: [1, 2]
      distance: {levels: [0, 2], points: 2}
      convergence: {levels: [1, 2]}
      frozen-features: {levels: [1, 2], budgets: [1, 0.5]}
      few-shot: {per_class: [1, 5], draws: 2, steps: 5it, levels: [2], budgets: [1, 0.5]}
      transfer: {targets: [{data: {name: fashion-mnist-10k, num_train: 200}}], native: true, levels: [2]}
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """A suite with every experiment, all of it done."""
    path = tmp_path_factory.mktemp("everything") / "everything.yaml"
    path.write_text(EVERYTHING.replace("CLAIMS", str(SUITES / "claims")))
    store = SyntheticStore()
    return store.plan(load_suite(path)), store


@pytest.fixture(scope="module")
def report(everything: tuple[Plan, Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, with figures in one format."""
    folder = tmp_path_factory.mktemp("report")
    write_report(*everything, folder, Path("suites/<b>&.yaml"), ("svg",))
    return folder


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text_of: dict[str, str] = {}
        self.tags: set[str] = set()
        self.latest: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag in ("td", "th", "tr"):
            self._leave_out("td", "th")
        if tag == "tr":
            self._leave_out("tr")
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.references += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action", "data")]
        if tag in ("svg", "img"):
            self.images.append(values)
        self.latest = values.get("id")

    def _leave_out(self, *tags: str) -> None:
        """End an open element whose end tag HTML lets be left out."""
        if self.open and self.open[-1] in tags:
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("thead", "tbody", "tr"):
            self._leave_out("td", "th")
        if tag in ("thead", "tbody"):
            self._leave_out("tr")
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.latest:
            self.text_of[self.latest] = self.text_of.get(self.latest, "") + data


def test_every_family_of_figures_reads_its_experiments(everything: tuple[Plan, Store]) -> None:
    plan, store = everything
    rows = results_table(plan, store)
    measured = Measured("tiny", plan.suite.pairs["tiny"], rows, summarise(rows), lambda key: store.result(key) or {})
    names: list[str] = []
    for family in FAMILIES:
        with figure_style():
            drawn = list(family.draw(measured))
        assert drawn, family.__name__
        for drawing in drawn:
            assert drawing.numbers.rows and drawing.points, drawing.name
            assert all(re.search(r"\(n = 3\)|replicate", point.text) for point in drawing.points), drawing.name
        names += [drawing.name for drawing in drawn]
    assert len(names) == len(set(names))


def test_of_two_criteria_every_figure_says_which_and_the_overview_takes_the_one_that_the_controls_are_of(
    tiny_suite: Path,
) -> None:
    two = "imp: {levels: 2}\n      moved: {kind: imp, levels: 2, criterion: movement}"
    tiny_suite.write_text(tiny_suite.read_text().replace("imp: {levels: 2}", two, 1))
    store = SyntheticStore()
    found = gather(store.plan(load_suite(tiny_suite)), store, tiny_suite)
    titles = [drawing.title for section in found.sections for drawing in section.drawings]
    assert len(titles) == len(set(titles)) and {"Tickets of all arms (imp)", "Tickets of all arms (moved)"} <= {*titles}
    row = dict(zip(found.overview.columns, found.overview.rows[0], strict=True))
    (ticket,) = [
        s for s in found.summaries
        if (s.arm, s.experiment, s.level, s.metric, s.variant) == (row["arm"], "imp", 2, "test_accuracy", "ticket")
    ]  # fmt: skip
    assert row["sparsest ticket"] == interval_text(ticket.metric, ticket.interval)


def test_the_page_is_well_formed_and_loads_nothing(report: Path) -> None:
    text = (report / "index.html").read_text()
    page = Page(text)
    assert not page.open
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "img", "image"}
    for reference in page.references:
        assert reference.startswith("#") or (report / reference).is_file(), reference
    assert not re.search(r"url\((?!#)|@import", text)
    anchors = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert anchors <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_figure_says_what_it_shows_with_its_numbers(report: Path) -> None:
    page = Page((report / "index.html").read_text())
    assert len(page.images) >= 15
    for image in page.images:
        assert image["role"] == "img"
        title, description = str(image["aria-labelledby"]).split()
        assert page.text_of[title] and re.search(r"\d", page.text_of[description])


def test_figures_in_the_page_have_the_texts_of_the_files(report: Path) -> None:
    def texts(svg: str) -> list[str]:
        return re.findall(r"<text[^>]*>([^<]*)</text>", svg)

    files = sorted("".join(texts(path.read_text())) for path in (report / "figures").glob("*.svg"))
    figures = re.findall(r"<svg.*?</svg>", (report / "index.html").read_text(), flags=re.DOTALL)
    drawn = ["".join(texts(figure)) for figure in figures]
    assert sorted(drawn[1:]) == files, "the first one stands once more, beside what was found"
    assert drawn[0] in files
    assert any("0.001" in text for text in files), "numbers that rounding would destroy are among them"


def test_the_page_begins_with_what_was_found_in_a_few_sentences(everything: tuple[Plan, Store], report: Path) -> None:
    page = (report / "index.html").read_text()
    begin = page[page.index('id="found"') : page.index('id="verdicts"')]
    told = re.findall(r"<p>(.*?)</p>", begin)
    assert 3 <= len(told) <= 6 and begin.count("<svg") == 1
    dense = next(
        s for s in summarise(results_table(*everything)) if (s.variant, s.metric) == ("dense", "test_accuracy")
    )
    assert interval_text("test_accuracy", dense.interval) in told[0]


def test_claims_that_are_not_run_are_one_line_with_what_runs_them_below(report: Path) -> None:
    page = (report / "index.html").read_text()
    (line,) = re.findall(r"<summary>Not run, or about no pair of this suite: ([^<]*)</summary>", page)
    assert re.fullmatch(r"C\d+(, C\d+)*", line)
    table = page[page.index('class="verdicts"') : page.index("<summary>Not run")]
    assert "not run</span>" not in table


def test_headings_are_in_order(report: Path) -> None:
    headings = Page((report / "index.html").read_text()).headings
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(headings))


def test_what_is_read_is_shown_as_text(report: Path) -> None:
    text = (report / "index.html").read_text()
    assert "<script" not in text and "&lt;script&gt;alert(" in text
    assert "<cpu>" not in text and "&lt;cpu&gt;" in text
    assert "suites/<b>" not in text


def test_the_same_results_give_the_same_bytes(tiny_run: tuple[Plan, Store], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_report(*tiny_run, tmp_path / folder, TINY_SUITE, FORMATS)
    one, two = (sorted(p for p in (tmp_path / f).rglob("*") if p.is_file()) for f in ("one", "two"))
    assert {p.suffix for p in one} == {".html", ".csv", ".tex", ".pdf", ".svg", ".png"}
    for a, b in zip(one, two, strict=True):
        assert a.relative_to(tmp_path / "one") == b.relative_to(tmp_path / "two")
        assert a.read_bytes() == b.read_bytes(), a


def test_a_report_of_the_papers_suite_stays_under_five_megabytes(tmp_path: Path) -> None:
    """One pair of it is read; the others are as large."""
    (tmp_path / "suite.yaml").write_text(
        "title: one pair\nreplicates: 3\nselection_replicates: 2\n"
        f"include: [{SUITES / 'resnet20-cifar10.yaml'}]\n"
        + (SUITES / "paper.yaml").read_text().partition("# Made on every pair")[2].partition("\n")[2]
    )
    store = SyntheticStore()
    page = write_report(store.plan(load_suite(tmp_path / "suite.yaml")), store, tmp_path / "report", Path("s.yaml"))
    num_pairs = (SUITES / "paper.yaml").read_text().count("\n  - ")
    assert num_pairs >= 8
    assert page.stat().st_size * num_pairs < 5e6


def test_verdicts_come_first_with_their_numbers(everything: tuple[Plan, Store], report: Path) -> None:
    page = Page((report / "index.html").read_text())
    assert page.ids.index("verdicts") < page.ids.index("overview") < page.ids.index("pair-tiny")
    with (report / "tables" / "verdicts.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [line["claim"] for line in found] == [name for name in everything[0].suite.claims if name != "C22"]
    judged = [line for line in found if line["verdict"] not in SILENT]
    assert judged and all(line["n"] for line in judged)
    with (report / "tables" / "tests.csv").open(newline="") as file:
        # A count rests on the plan, not on tasks.
        tests = [line for line in csv.DictReader(file) if line["p"] and line["test"] != "count"]
    assert tests and all(line["tasks"] and int(line["n"]) for line in tests)


def test_without_results_the_page_says_how_to_get_them(tiny_suite: Path, tmp_path: Path) -> None:
    plan = make_plan(load_suite(tiny_suite))
    page = write_report(plan, Store(tmp_path / "none"), tmp_path / "report", TINY_SUITE)
    text = page.read_text()
    assert not (tmp_path / "none").exists(), "reading makes no store"
    for label in plan.suite.pairs["tiny"].experiments:
        assert f"lthbench run suites/tiny.yaml --store {tmp_path}/none --only {label}" in text
    assert not Page(text).open


def test_a_partly_run_suite_shows_what_there_is_and_what_is_missing(
    tiny_run: tuple[Plan, Store], tmp_path: Path
) -> None:
    plan, store = tiny_run

    class Partly(Store):
        def result(self, key: str) -> dict[str, object] | None:
            return None if "stability" in plan.users[key] else super().result(key)

    text = write_report(plan, Partly(store.root), tmp_path, TINY_SUITE).read_text()
    assert "--only stability" in text and "--only controls" not in text
    assert "early: tickets and their controls" in text and "Error between children" not in text


def test_csv_tables_hold_every_number(everything: tuple[Plan, Store], report: Path) -> None:
    rows = results_table(*everything)
    with (report / "tables" / "numbers.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(r["key"], r["metric"], float(r["value"])) for r in read] == [(r.key, r.metric, r.value) for r in rows]
    with (report / "tables" / "summary.csv").open(newline="") as file:
        means = [(line["metric"], float(line["mean"]), int(line["n"])) for line in csv.DictReader(file)]
    assert means == [(s.metric, s.interval.mean, s.interval.n) for s in summarise(rows)]


def test_latex_tables_escape_what_latex_would_act_on(report: Path) -> None:
    assert latex_text(r"a_b 5 % ± 2 & {x} \y ^ ~ # $") == (
        r"a\_b 5 \% $\pm$ 2 \& \{x\} \textbackslash{}y \textasciicircum{} \textasciitilde{} \# \$"
    )
    tables = list((report / "tables").glob("*.tex"))
    assert len(tables) >= 15
    for path in tables:
        text = path.read_text().replace(r"$\pm$", "")
        bare = re.sub(r"\\[%_&#$\\{}]", "", text)
        assert not re.search(r"[%_#$^~<>]", bare), path
        assert bare.count("{") == bare.count("}")
        widths = {line.count("&") for line in re.sub(r"\\&", "", text).splitlines() if line.endswith(r"\\")}
        assert len(widths) == 1, path


def test_a_run_ends_with_the_path_of_its_report_and_does_not_fail_with_it(
    tiny_suite: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lthbench.analysis.report import write

    run = ("run", tiny_suite, "--store", tmp_path / "store", "--workers", "0", "--only", "stability", "--report")
    code, out, _ = call(*run)
    page = Path(out.strip().splitlines()[-1].removeprefix("Report: "))
    assert code == 0 and "Error between children" in page.read_text() and page.is_relative_to(tmp_path / "store")

    def broken(*_: object) -> None:
        raise ValueError("no figure today")

    monkeypatch.setattr(write, "gather", broken)
    code, out, err = call(*run)
    assert code == 0 and "no figure today" in err and "Report:" not in out
