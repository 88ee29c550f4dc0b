"""Suites: what they merge to, and one clear error for every kind of bad file."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY

from lthbench.cli import main
from lthbench.data.spec import num_train_images
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError

REPOSITORY = Path(__file__).parents[2]


def load(folder: Path, text: str) -> Suite:
    (folder / "suite.yaml").write_text(text)
    return load_suite(folder / "suite.yaml")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_of_the_repository_is_valid_and_has_a_plan(path: Path) -> None:
    assert make_plan(load_suite(path), Subset(replicates=1)).tasks


def test_claims_are_tested_at_levels_whose_parts_follow_the_pairs_own_range(tmp_path: Path) -> None:
    levels = load(tmp_path, TINY).pairs["tiny"].claim_levels
    left = {name: [0.8**level for level in there] for name, there in levels.items()}
    assert max(left["third"]) <= 0.33 < max(left["range"]) and max(left["fifth"]) <= 0.21
    assert set(levels["fifth"]) < set(levels["third"]) < set(levels["range"])
    own = load(tmp_path, TINY + "    claim_levels: {range: [2], fifth: [1]}\n").pairs["tiny"].claim_levels
    assert own == {"range": (2,), "third": (2,), "fifth": (1,), "extreme": (13, 16, 20)}


def test_an_arm_changes_only_what_it_names(tmp_path: Path) -> None:
    arms = load(tmp_path, TINY).pairs["tiny"].arms
    assert (arms["early"].recipe.optimizer.lr, arms["late"].recipe.optimizer.lr) == (0.05, 0.2)
    assert arms["late"].recipe.optimizer.weight_decay == 1e-3
    assert arms["late"].search == arms["late"].recipe


def test_an_arm_that_changes_the_optimizer_inherits_none_of_its_options(tmp_path: Path) -> None:
    text = TINY.replace("early: {}", "early: {recipe: {optimizer: {name: adamw, lr: 1e-3}}}")
    assert load(tmp_path, text).pairs["tiny"].arms["early"].recipe.optimizer.weight_decay == 0


def test_an_arm_extends_another_in_recipe_and_search(tmp_path: Path) -> None:
    text = TINY.replace(
        "early: {}", "early: {search: {steps: 2ep}}\n      more: {extends: early, recipe: {pull: 0.01}}"
    )
    arms = load(tmp_path, text).pairs["tiny"].arms
    assert (str(arms["more"].search.steps), arms["more"].search.pull, arms["more"].recipe.pull) == ("2ep", 0.01, 0.01)
    assert str(arms["more"].recipe.steps) == "3ep"


def test_an_arm_may_say_its_class_which_those_that_extend_it_do_not_inherit(tmp_path: Path) -> None:
    text = TINY.replace("early: {}", "early: {class: early}\n      more: {extends: early}")
    arms = load(tmp_path, text).pairs["tiny"].arms
    assert [(name, arm.stability_class) for name, arm in arms.items()] == [
        ("early", "early"),
        ("more", None),
        ("late", None),
    ]


def test_an_including_suite_lays_its_changes_over_the_included_pairs(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    text = "title: all\nreplicates: 2\ninclude: [tiny.yaml]\npairs: {tiny: {recipe: {steps: 2ep}}}\n"
    suite = load(tmp_path, text)
    assert (suite.title, suite.replicates, str(suite.pairs["tiny"].arms["late"].recipe.steps)) == ("all", 2, "2ep")
    assert set(suite.pairs["tiny"].experiments) == {"imp", "rewound", "controls", "stability"}


def test_a_suite_in_small_changes_lengths_and_data_and_nothing_else() -> None:
    paper, micro = (load_suite(REPOSITORY / "suites" / f"{name}.yaml").pairs for name in ("paper", "micro"))
    assert set(micro) >= set(paper)
    for name, pair in paper.items():
        small = micro[name]
        assert (small.model, small.pruning, list(small.arms)) == (pair.model, pair.pruning, list(pair.arms))
        assert small.data.name == "fashion-mnist-10k"
        shape, classes = pair.data.info.image_shape, pair.data.info.num_classes
        assert (small.data.info.image_shape, small.data.info.num_classes) == (shape, classes)
        for arm in pair.arms:
            for role in ("recipe", "search"):
                whole, part = getattr(pair.arms[arm], role), getattr(small.arms[arm], role)
                kept = {"optimizer", "augment", "label_smoothing", "precision", "pull"}
                assert part.model_dump(include=kept) == whole.model_dump(include=kept)
                assert part.schedule.name == whole.schedule.name
                assert len(part.schedule.milestones) == len(whole.schedule.milestones)
                an_epoch, few = whole.steps_per_epoch(num_train_images(pair.data)), part.steps.count(1)
                warmup = whole.schedule.warmup.count(an_epoch) * few / whole.steps.count(an_epoch)
                assert part.schedule.warmup.count(1) == pytest.approx(warmup, abs=0.5)


def test_a_suite_in_small_makes_its_own_experiments_alone(tmp_path: Path) -> None:
    text = "title: small\nreplicates: 1\ninclude: [tiny.yaml]\nexperiments: {imp: {levels: 1}}\nmicro: "
    (tmp_path / "tiny.yaml").write_text(TINY)
    size = "{steps: 8, batch_size: 4, num_train: 8, num_test: 10"
    pair = load(tmp_path, text + size + ", pairs: {tiny: {steps: 5}}}").pairs["tiny"]
    assert list(pair.experiments) == ["imp"]
    recipe = pair.arms["early"].recipe
    assert (str(recipe.steps), recipe.batch_size, pair.data.num_train, pair.data.num_test) == ("5it", 4, 8, 10)
    for fault, message in (
        ("{steps: 8}", "batch_size: is required"),
        (size + ", stepz: 1}", "did you mean 'steps'"),
        (size + ", pairs: {tinny: {}}}", "no pair is called 'tinny'; did you mean 'tiny'"),
        (size + ", pairs: {tiny: {steps: 0}}}", "steps"),
        ("3", "expected a mapping"),
    ):
        with pytest.raises(SuiteError, match=r"suite\.yaml:5") as error:
            load(tmp_path, text + fault)
        assert message in str(error.value)


BAD = {
    "an unknown class": (TINY.replace("early: {}", "early: {class: erly}"), 13, "class", "'early' or 'late'"),
    "a wrong type": (TINY.replace("replicates: 1", "replicates: many"), 2, "replicates", "found 'many'"),
    "a number out of range": (TINY.replace("lr: 0.2", "lr: -1"), 14, "lr", "greater than 0, found -1"),
    "an unknown model": (TINY.replace("lenet-300-100", "lenet-300-10"), 5, "name", "did you mean 'lenet-300-100'"),
    "an unknown data set": (TINY.replace("fashion-mnist-10k", "fashion"), 6, "name", "fashion-mnist"),
    "an unknown key at the top": (TINY.replace("title", "titel"), 1, "titel", "did you mean 'title'"),
    "an unknown key of a pair": (TINY.replace("pruning:", "prunning:"), 7, "prunning", "did you mean 'pruning'"),
    "an unknown key of a recipe": (TINY.replace("batch_size", "batchsize"), 10, "batchsize", "'batch_size'"),
    "an unknown key of an optimizer": (TINY.replace("momentum:", "momemtum:"), 11, "momemtum", "'momentum'"),
    "an unknown experiment": (TINY.replace("controls:", "control:"), 18, "control", "did you mean 'controls'"),
    "an unknown key of an experiment": (TINY.replace("levels: [2]", "level: [2]"), 18, "level", "'levels'"),
    "an unknown arm of an experiment": (TINY.replace("[early]", "[earlier]"), 17, "arms", "did you mean 'early'"),
    "a missing key": (TINY.replace("batch_size: 64", ""), 9, "batch_size", "is required"),
    "steps without a unit": (TINY.replace("steps: 3ep", "steps: 3"), 9, "steps", "write 500it, 160ep or 3ep50it"),
    "arms in a circle": (
        TINY.replace("early: {}", "early: {extends: late}").replace("late: {", "late: {extends: early, "),
        13, "early", "circular reference: early -> late -> early",
    ),
    "a file that includes itself": (TINY + "include: [suite.yaml]\n", None, "include", "circular reference"),
    "a missing include": (TINY + "include: [other.yaml]\n", None, "other.yaml", "cannot be read"),
    "an empty file": ("", None, "suite.yaml", "the file is empty"),
    "a list": ("- 1\n", 1, "", "expected a mapping"),
    "a tag that would build an object": ("title: !!python/object/apply:os.system [touch harm]\n", 1, "tag", "allowed"),
    "an anchor": (TINY.replace("early: {}", "early: &a {}"), 13, "anchor", "use extends or include"),
    "broken YAML": ("title: [\n", 2, "YAML", "expected"),
    "a key given twice": (TINY + "title: again\n", 20, "title", "given twice"),
    "deep nesting": ("title: " + "[" * 5000 + "]" * 5000, None, "", "nested too deeply"),
    "an experiment beyond the training": (TINY.replace("1ep2it", "9ep"), 19, "spawns.1", "leaves nothing to train"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_suite_gives_one_clear_error_and_writes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, line, key, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["lthbench", "run", "suite.yaml", "--store", "store"])
    with pytest.raises(SystemExit) as exit_:
        main()
    printed = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) == 1, printed
    assert (f"suite.yaml:{line}: " if line else "") in printed, printed
    assert key in printed and message in printed, printed
    assert [p.name for p in tmp_path.iterdir()] == ["suite.yaml"]


def test_a_file_of_nested_anchors_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(SuiteError, match="anchor or alias"):
        load(tmp_path, "\n".join(lines))
    with pytest.raises(SuiteError, match="a suite has at most 1,048,576"):
        load(tmp_path, "\n".join(lines) + "\n#" + "x" * 10_000_000)
