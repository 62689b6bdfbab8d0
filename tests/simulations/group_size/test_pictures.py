"""The picture of a choice shows both units, where they cross, and what is chosen."""

from feddp.simulations.group_size.pictures import draw_nu


def test_both_units_every_crossing_and_the_choice_are_drawn() -> None:
    figure = draw_nu(
        [(1, 3.0, 4.0), (2, 2.5, 2.4), (4, 2.2, 1.5)],
        crossings=[1.9, 3.1],
        chosen=(4, 1.5),
        title="epsilon 8",
    )
    (axis,) = figure.axes
    users, examples, first, second, chosen = axis.lines
    assert users.get_xydata().tolist() == [[1, 3.0], [2, 2.5], [4, 2.2]]
    assert examples.get_xydata().tolist() == [[1, 4.0], [2, 2.4], [4, 1.5]]
    assert [line.get_xdata()[0] for line in (first, second)] == [1.9, 3.1]
    assert chosen.get_xydata().tolist() == [[4, 1.5]]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["users drawn (ULS)", "examples drawn (ELS)", "crossover", "chosen"]
    assert axis.get_title(loc="left") == "epsilon 8"
    assert list(axis.get_xticks()) == [1, 2, 4]
