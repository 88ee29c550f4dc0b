"""Every kind of fault of a suite: one line with file, line and key, in the words of suites."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.yaml_tree import SuiteError, read_yaml

QUICK = (Path(__file__).parents[2] / "suites" / "quick.yaml").read_text().replace("claims: [claims]", "")
# What validation calls things, and suites do not.
PYDANTIC = re.compile(
    r"pydantic|validation error|Input |Extra inputs|Field required|Value error|Tuple|Dictionary|List should|input_value"
    r"|String should|items? after|tag '|valid (integer|number|string|boolean|tuple|dictionary)|type=|another value"
)
GARBAGE = ("yes", "-1", "[]", "{zzz: 1}", "1:30", "zzz", "''", "~", "1e400", "[[1]]", "0.5")


def table() -> Iterator[tuple[str, str, str]]:
    """What is replaced in the tiny suite, by what, and what is then told."""
    lines = (Path(__file__).parent / "suite_faults.txt").read_text().splitlines()
    for change, message in zip(lines[::2], lines[1::2], strict=True):
        old, new = change.split(" -> ")
        yield old, new.replace("\\n", "\n"), message.strip()


def told(folder: Path, text: str) -> list[str]:
    """The lines that are told of a suite, without its path; none where it can be used."""
    path = folder / "suite.yaml"
    path.write_text(text)
    try:
        load_suite(path)
    except SuiteError as error:
        return [line.replace(f"{path}:", "") for line in str(error).splitlines()]
    return []


@pytest.mark.parametrize(("old", "new", "message"), list(table()))
def test_a_fault_is_one_line_with_its_place_key_and_cure(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert TINY.count(old) == 1
    assert told(tmp_path, TINY.replace(old, new)) == [message]
    assert not PYDANTIC.search(message)


def values(text: str) -> list[tuple[int, int, int]]:
    """Line, begin and end of every scalar that is not a key."""
    found = []
    pending = [yaml.compose(text)]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            pending += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value
        else:
            found.append((node.start_mark.line + 1, node.start_mark.index, node.end_mark.index))
    return found


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.sampled_from(values(QUICK)), garbage=st.sampled_from(GARBAGE))
def test_any_damaged_value_is_reported_once_in_the_words_of_suites(
    value: tuple[int, int, int], garbage: str, tmp_path: Path
) -> None:
    line, begin, end = value
    lines = told(tmp_path, QUICK[:begin] + garbage + QUICK[end:])
    assert len(lines) <= 1, lines
    for message in lines:
        assert message.startswith(f"{line}: ") and not PYDANTIC.search(message), message


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "decimal: 010\noctal: 0o10\nhexadecimal: 0x1F\nfloat: 1e-4\nclock: 1:30\nday: 2026-01-01\ntruth: True\n"
        "words: [yes, no, on, off, y, 1_000]\nnothing: [~, null, Null]\non: arm\ninfinite: -.INF\nquoted: '010'\n"
    )
    assert read_yaml(tmp_path / "a.yaml").plain() == {
        "decimal": 10, "octal": 8, "hexadecimal": 31, "float": 1e-4, "clock": "1:30", "day": "2026-01-01",
        "truth": True, "words": ("yes", "no", "on", "off", "y", "1_000"), "nothing": (None, None, None),
        "on": "arm", "infinite": float("-inf"), "quoted": "010",
    }  # fmt: skip


def test_an_arm_may_have_a_name_that_is_a_truth_value_in_yaml_1_1(tmp_path: Path) -> None:
    text = TINY.replace("early: {}", "on: {}\n      no: {extends: on}").replace("arms: [early]", "arms: [on]")
    (tmp_path / "suite.yaml").write_text(text)
    assert list(load_suite(tmp_path / "suite.yaml").pairs["tiny"].arms) == ["on", "no", "late"]


@pytest.mark.parametrize("key", ["suite", "include", "claims"])
def test_what_is_not_a_regular_file_is_refused_at_once(key: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/zero", str(tmp_path / "pipe")):
        path = tmp_path / "suite.yaml"
        path.write_text(f"{TINY}{key}: [{name}]\n")
        with pytest.raises(SuiteError, match=f"{name}: is not a regular file"):
            load_suite(Path(name) if key == "suite" else path, allow_outside=True)


def test_a_plan_of_too_many_tasks_ends_with_the_limit(monkeypatch: pytest.MonkeyPatch, tiny_suite: Path) -> None:
    from lthbench.suite import plan

    monkeypatch.setattr(plan, "MAX_TASKS", 10)
    with pytest.raises(SuiteError, match="at least 11 tasks"):
        plan.make_plan(load_suite(tiny_suite))


VGG = TINY[: TINY.index("      rewound")].replace("lenet-300-100, width: 10", "vgg11, width: 4")
VGG = VGG.replace("num_train: 300", "num_train: 65")


def test_a_last_batch_of_one_image_is_reported_where_batch_normalisation_cannot_take_it(tmp_path: Path) -> None:
    (message,) = told(tmp_path, VGG)
    assert message.startswith("10: pairs.tiny.arms.early.recipe.batch_size: 65 images in batches of 64 leave one")
    for cure in ("batch_size: 64, drop_last: true", "batch_size: 32, micro_batch: 11, drop_last: true"):
        assert not told(tmp_path, VGG.replace("batch_size: 64", cure.replace(", ", "\n      ")))


def test_a_last_batch_of_one_image_of_a_few_shot_training_is_reported_by_plan(tmp_path: Path) -> None:
    few = "      few-shot: {per_class: [13], draws: 1, steps: 2ep, levels: [1], target: TARGET}\n"
    target = "{name: fashion-mnist-10k, classes: [0-4]}"
    (tmp_path / "suite.yaml").write_text(VGG.replace("num_train: 65", "num_train: 66") + few.replace("TARGET", target))
    with pytest.raises(SuiteError, match=r"for few-shot: 65 images in batches of 64 .* drop_last"):
        make_plan(load_suite(tmp_path / "suite.yaml"))
