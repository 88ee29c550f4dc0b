import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.training.steps import Steps


@pytest.mark.parametrize(("text", "count"), [("500it", 500), ("160ep", 62560), ("3ep50it", 1223), ("0it", 0)])
def test_steps_count_in_iterations(text: str, count: int) -> None:
    assert Steps.parse(text).count(391) == count


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_written_is_read(epochs: int, iterations: int) -> None:
    steps = Steps(epochs, iterations)
    assert Steps.parse(str(steps)) == steps


@pytest.mark.parametrize("text", ["", "5", "ep", "5epochs", "3it2ep", "-1it", "1.5ep", "5 it", "٣it2x"])
def test_anything_else_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(ValueError, match="write 500it, 160ep or 3ep50it"):
        Steps.parse(text)
