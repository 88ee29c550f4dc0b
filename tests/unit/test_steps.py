import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.training.steps import Steps


@pytest.mark.parametrize(("text", "count"), [("500it", 500), ("160ep", 62560), ("3ep50it", 1223), ("0it", 0)])
def test_steps_are_counted_in_iterations(text: str, count: int) -> None:
    assert Steps.parse(text).count(391) == count


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_steps_are_read_as_they_are_written(epochs: int, iterations: int) -> None:
    steps = Steps(epochs, iterations)
    assert Steps.parse(str(steps)) == steps


@pytest.mark.parametrize(("text", "count"), [("2%", 1251), ("0.25%", 156), ("32%", 20019), ("100%", 62560), ("0%", 0)])
def test_a_share_is_counted_in_iterations_of_the_whole_training_to_the_nearest_one(text: str, count: int) -> None:
    assert Steps.parse(text).count(391, 62560) == count


@pytest.mark.parametrize(("text", "written"), [("2%", "2%"), ("0.250%", "0.25%"), ("100%", "100%"), ("20.0%", "20%")])
def test_a_share_is_written_as_it_was_read(text: str, written: str) -> None:
    assert str(Steps.parse(text)) == written
    assert Steps.parse(written) == Steps.parse(text)


def test_a_share_of_a_longer_training_is_the_same_share() -> None:
    assert Steps.parse("2%").scaled(3.0, 391) == Steps.parse("2%")


def test_a_share_alone_is_no_length() -> None:
    with pytest.raises(ValueError, match="2% is a share of a training, not a length"):
        Steps.parse("2%").count(391)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "-2%",
        "2.%",
        ".5%",
        "1e1%",
        "2ep1%",
        "2 %",
        "5",
        "ep",
        "5epochs",
        "3it2ep",
        "-1it",
        "1.5ep",
        "5 it",
        "٣it2x",
    ],
)
def test_anything_else_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(ValueError, match="write 500it, 160ep or 3ep50it"):
        Steps.parse(text)


def test_a_share_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'100\.5%' is beyond the end"):
        Steps.parse("100.5%")
