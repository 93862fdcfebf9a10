"""How much at once: how soon more is tried, and after what."""

from __future__ import annotations

from tenure.model.amount import GROWS_AFTER, Amount


def run(amount: Amount, times: int, bound: int) -> list[int]:
    """Take amounts that work up to a bound; return those that did not."""
    too_much: list[int] = []
    for _ in range(times):
        if amount.now > bound:
            too_much.append(amount.now)
            amount.took_too_long(amount.now)
        else:
            amount.worked(amount.now)
    return too_much


def test_what_takes_too_long_is_halved_and_tried_again_only_now_and_then() -> None:
    amount = Amount(500)
    assert run(amount, 100, 300) == [500] * 5
    assert amount.now == 250
    assert run(amount, GROWS_AFTER, 1_000) == [] and amount.now == 500
    assert run(amount, 100, 1_000) == [] and amount.now == 500, "never more than at first"


def test_after_one_item_that_takes_too_long_by_itself_it_is_soon_as_much_as_before() -> None:
    amount = Amount(500)
    while amount.now > 1:
        amount.took_too_long(amount.now)
    amount.took_too_long(1)
    assert run(amount, 9, 1_000) == [] and amount.now == 500


def test_fewer_than_there_might_have_been_say_nothing_of_more() -> None:
    amount = Amount(8)
    amount.took_too_long(3)
    assert amount.now == 1, "not 4: of three it was too much"
    amount = Amount(8)
    amount.took_too_long(8)
    for _ in range(2 * GROWS_AFTER):
        amount.worked(3)
    assert amount.now == 4
