from lthbench.training.streams import stream


def test_a_stream_gives_the_same_numbers_every_time() -> None:
    assert stream(3, "order", 1, 7).permutation(9).tolist() == stream(3, "order", 1, 7).permutation(9).tolist()


def test_streams_that_differ_in_one_part_of_their_name_differ() -> None:
    names = [(0, "order", 0, 0), (1, "order", 0, 0), (0, "augment", 0, 0), (0, "order", 1, 0), (0, "order", 0, 1),
             (0, "order", 0), (0, "order", "0", 0), (0, "order", 10), (0, "order", 1, 0, 0)]  # fmt: skip
    draws = {tuple(stream(*name).integers(0, 2**62, 4).tolist()) for name in names}  # type: ignore[arg-type]
    assert len(draws) == len(names)


def test_the_numbers_are_these_on_every_machine() -> None:
    assert stream(0, "order", 0, 0).permutation(8).tolist() == PERMUTATION
    assert [round(x, 12) for x in stream(0, "init", 0, "fc1.weight").standard_normal(3)] == NORMALS


PERMUTATION = [4, 5, 0, 2, 6, 7, 1, 3]
NORMALS = [0.829399816845, -0.226618822537, 0.271628580078]
