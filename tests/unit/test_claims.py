"""Claims files: what they may say, and one clear error for every kind of fault; and the paper's own."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import suite_text

from lthbench.analysis.claims.judge import judge
from lthbench.analysis.points import points
from lthbench.experiments import EXPERIMENTS
from lthbench.suite.claim_names import needed_kinds, overlap
from lthbench.suite.claim_tests import Contrast, Selection
from lthbench.suite.claims import Claim, read_claims
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.store import Store

SUITES = Path(__file__).parents[2] / "suites"
CLAIM = """\
C1:
  sentence: Tickets win.
  origin: abstract
  experiments: [imp]
  tests:
    - {what: better, test: contrast, plus: {early: ticket}, minus: {early: dense}, margin: 0.5}
"""


def load(folder: Path, text: str) -> dict[str, Claim]:
    (folder / "claims.yaml").write_text(text)
    return read_claims([folder / "claims.yaml"])[0]


def test_a_selection_is_an_arm_and_what_was_measured_of_it(tmp_path: Path) -> None:
    (test,) = load(tmp_path, CLAIM)["C1"].tests
    assert isinstance(test, Contrast)
    assert test.plus == (Selection(arm="early", variant="ticket"),)
    whole = CLAIM.replace("{early: ticket}", "{arm: early, variant: ticket, rewound: true}")
    (test,) = load(tmp_path, whole)["C1"].tests
    assert isinstance(test, Contrast) and test.plus[0].rewound


BAD = {
    "an unknown key": (CLAIM.replace("margin", "margn"), 6, "margn", "did you mean 'margin'"),
    "an unknown test": (CLAIM.replace("test: contrast", "test: contrasts"), 6, "tests", "contrast"),
    "an empty origin": (CLAIM.replace("abstract", "''"), 3, "origin", "at least 1 character"),
    "a missing key": (CLAIM.replace("what: better, ", ""), 6, "what", "is required"),
    "equivalence without a margin": (
        CLAIM.replace("margin: 0.5", "expected: equivalent"), 6, "tests", "needs a margin above 0",
    ),
    "a negative margin": (CLAIM.replace("0.5", "-1"), 6, "margin", "at least 0"),
    "no tests": (CLAIM[: CLAIM.index("    -")].replace("tests:", "tests: []"), 5, "tests", "at least 1"),
    "a list of claims": ("- C1\n", 1, "", "expected a mapping of claims"),
    "code": (CLAIM.replace("Tickets win.", "!!python/name:os.system"), 2, "tag", "not allowed"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "message"), BAD.values(), ids=BAD.keys())
def test_a_fault_is_reported_with_file_line_and_key(
    text: str, line: int, key: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SuiteError) as error:
        load(tmp_path, text)
    told = str(error.value)
    assert f"claims.yaml:{line}: " in told and key in told and message in told, told


def test_the_origin_of_ones_own_claim_is_in_ones_own_words(tmp_path: Path) -> None:
    assert load(tmp_path, CLAIM.replace("abstract", "Smith 2031, figure 3"))["C1"].origin == "Smith 2031, figure 3"


def test_a_term_that_is_tested_must_be_fixed(tmp_path: Path) -> None:
    test = "{what: x, test: mixed, rows: {a: {of: {early: ticket}}}, fixed: [a], tested: b}"
    with pytest.raises(SuiteError, match="'b' is none of fixed"):
        load(tmp_path, CLAIM[: CLAIM.index("    -")] + f"    - {test}\n")


def test_a_term_of_a_model_is_a_column_of_its_rows(tmp_path: Path) -> None:
    test = (
        "{what: x, test: mixed, rows: {a: {of: {early: 'ticket, {images} per class'}}}, fixed: [a, FACTOR], tested: a}"
    )
    head = CLAIM[: CLAIM.index("    -")]
    assert load(tmp_path, f"{head}    - {test.replace('FACTOR', 'a x log images, factor arm')}\n")
    with pytest.raises(SuiteError, match=r"claims\.yaml:6: .*'imags'; did you mean 'images'"):
        load(tmp_path, f"{head}    - {test.replace('FACTOR', 'factor imags')}\n")


def test_a_claim_rests_only_on_claims_before_it(tmp_path: Path) -> None:
    text = CLAIM[: CLAIM.index("    -")] + "    - {what: x, test: claim, claim: C9}\n"
    with pytest.raises(SuiteError, match="'C9' is not an earlier claim"):
        load(tmp_path, text)


def test_a_suite_has_the_claims_of_its_files_and_of_the_suites_it_includes(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "mine.yaml").write_text(CLAIM)
    (tmp_path / "more.yaml").write_text(CLAIM.replace("C1", "C10") + CLAIM.replace("C1", "C2"))
    (tmp_path / "one.yaml").write_text(suite_text("claims", 1, "a"))
    both = "title: both\nreplicates: 2\ninclude: [one.yaml]\nclaims: [more.yaml, claims]\n"
    (tmp_path / "both.yaml").write_text(both)
    assert list(load_suite(tmp_path / "both.yaml").claims) == ["C1", "C2", "C10"]
    (tmp_path / "both.yaml").write_text(both.replace("more.yaml", "absent.yaml"))
    with pytest.raises(SuiteError, match=r"absent\.yaml: cannot be read"):
        load_suite(tmp_path / "both.yaml")


UNKNOWN = {
    "an arm": ("plus: {early: ticket}", "plus: {erly: ticket}", 6, "no arm is called 'erly'; did you mean 'early'?"),
    "a variant": (
        "minus: {early: dense}", "minus: {early: dens}", 6, "none of imp measures 'dens'; did you mean 'dense'?",
    ),
    "a variant of another kind": ("{early: dense}", "{early: reinit}", 6, "none of imp measures 'reinit'"),
    "a metric": (
        "margin: 0.5", "metric: test_acuracy", 6, "no metric of 'ticket' is called 'test_acuracy'; did you mean 'test_",
    ),
    "a metric of a selection": (
        "{early: dense}", "{arm: early, variant: dense, metric: forgetting_events}", 6, "no metric of 'dense' is",
    ),
    "a set of levels": ("margin: 0.5", "levels: [range, extrem]", 6, "a has no claim_levels 'extrem'; did you mean"),
    "what is counted": (
        "test: contrast, plus: {early: ticket}, minus: {early: dense}, margin: 0.5",
        "test: cost, experiments: [onst], than: 3", 6, "no experiment is called 'onst'; did you mean 'onset'?",
    ),
    "an experiment": ("[imp]", "[impp]", 4, "no experiment is called 'impp'; did you mean 'imp'?"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_name_that_stands_for_nothing_in_the_suite_is_reported_with_its_place(
    old: str, new: str, line: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(CLAIM.replace(old, new))
    (tmp_path / "suite.yaml").write_text(suite_text("mine.yaml", 2, "a", "b"))
    with pytest.raises(SuiteError) as error:
        load_suite(tmp_path / "suite.yaml")
    told = str(error.value)
    assert f"mine.yaml:{line}: C1." in told and message in told, told
    (tmp_path / "mine.yaml").write_text(CLAIM)
    assert load_suite(tmp_path / "suite.yaml").claims, "what the suite has is accepted"


def test_an_arm_that_only_some_pairs_have_and_an_experiment_that_the_suite_leaves_out_are_no_faults(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.yaml").write_text(CLAIM.replace("{early: dense}", "{mine: dense}"))
    text = suite_text("mine.yaml", 2, "a", "b")
    text = text.replace("early: {class: early}, ", "early: {class: early}, mine: {}, ", 1).replace(
        "      crossed-masks: {levels: [1, 2]}\n", ""
    )
    (tmp_path / "suite.yaml").write_text(text)
    assert load_suite(tmp_path / "suite.yaml").claims
    crossed = CLAIM.replace("[imp]", "[crossed-masks]").replace("{early: ticket}", "{early: mask of late}")
    (tmp_path / "mine.yaml").write_text(crossed.replace("{early: dense}", "{late: 'mask of early*'}"))
    assert load_suite(tmp_path / "suite.yaml").claims


def test_a_claim_needs_no_experiment_that_only_adds_what_is_reported_beside_it(tmp_path: Path) -> None:
    reported = "    - {what: x, counts: false, test: contrast, plus: {early: barrier}, metric: test_barrier}\n"
    claim = load(tmp_path, CLAIM.replace("[imp]", "[imp, stability]") + reported)["C1"]
    assert needed_kinds(claim) == ["imp"]
    both = load(tmp_path, CLAIM.replace("[imp]", "[imp, stability]") + reported.replace("counts: false, ", ""))["C1"]
    assert needed_kinds(both) == ["imp", "stability"]


@given(st.text("ab*", max_size=3), st.text("ab*", max_size=3))
def test_two_patterns_overlap_if_some_text_matches_both(a: str, b: str) -> None:
    texts = ("".join(letters) for n in range(7) for letters in product("ab", repeat=n))
    assert overlap(a, b) == any(fnmatchcase(text, a) and fnmatchcase(text, b) for text in texts)


def test_the_papers_claims_are_found_from_any_folder_unless_it_has_claims_of_its_own(tmp_path: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(suite_text("claims", 1, "a"))
    assert list(load_suite(suite).claims) == [f"C{n}" for n in range(1, 24)]
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "mine.yaml").write_text(CLAIM)
    assert list(load_suite(suite).claims) == ["C1"]


@pytest.fixture(scope="module")
def paper_claims() -> dict[str, Claim]:
    return read_claims(sorted((SUITES / "claims").glob("*.yaml")))[0]


def test_the_paper_has_23_claims_and_they_name_experiments_that_exist(paper_claims: dict[str, Claim]) -> None:
    assert list(paper_claims) == [f"C{n}" for n in range(1, 24)]
    assert {kind for claim in paper_claims.values() for kind in claim.experiments} <= set(EXPERIMENTS)


# Without batch normalisation nothing is recomputed; tickets end at level 10; no data of that image size to move to.
@pytest.mark.parametrize(
    ("pair", "expected"), [("resnet20-cifar10", set()), ("swin-tinyimagenet", {"C3", "C5", "C19"})]
)
def test_the_whole_suite_measures_what_the_claims_need(pair: str, expected: set[str], tmp_path: Path) -> None:
    suite = load_suite(SUITES / "paper.yaml")
    plan = make_plan(suite, Subset(pairs=(pair,), replicates=1))
    lacking = set()
    for verdict in judge(suite, points(plan, Store(tmp_path)), {(pair, "onset"): 40.0}, "suites/paper.yaml"):
        late = "no 'onset' of * yet"  # is read when a bisection has ended
        reasons = [part.reason for part in verdict.parts if part.reason != late]
        if verdict.pair == pair and any(reason.startswith(("no '", "not all that")) for reason in reasons):
            lacking.add(verdict.claim)
    assert lacking == expected
