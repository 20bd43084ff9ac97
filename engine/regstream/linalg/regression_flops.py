"""The FLOP of a regression's sums, from shapes alone: a multiplication and an addition count as two.

Counted is what has to be done: half of a symmetric product.
"""

from collections.abc import Sequence

from regstream.linalg.gram import stores_tokens, symmetric_product_flops


def regression_flops(
    in_features: int, out_features: int, tokens: Sequence[int], *, first_is_reference: bool = True, share: float = 1.0
) -> dict[str, float]:
    """Of one input group's sums, with `out_features` of all its linears, by kind of work; `tokens` by candidate.

    `share`: of these tokens, those that reach the group.
    """
    grams = right_hand_sides = 0.0
    for index, num_tokens in enumerate(tokens):
        is_stored, count = stores_tokens(num_tokens, in_features), num_tokens * share
        triangle = symmetric_product_flops(count, in_features)
        if is_stored:
            right_hand_sides += triangle
        else:
            grams += triangle
        if index > 0 or not first_is_reference:
            right_hand_sides += (4.0 * count if is_stored else 2.0 * in_features) * out_features * in_features
    return {"Gram matrices": grams, "right-hand sides": right_hand_sides}
