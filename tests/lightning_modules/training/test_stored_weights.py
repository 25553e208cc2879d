import torch

from lightning_modules.training.stored_weights import describe_mismatch

OWN = {"a": torch.zeros(2), "b": torch.zeros(3), "frozen": torch.zeros(1)}


def test_weights_that_fit_are_not_complained_about_even_without_frozen_ones():
    assert describe_mismatch(OWN, OWN, OWN.keys()) == ""
    assert describe_mismatch({"a": OWN["a"], "b": OWN["b"]}, OWN, {"a", "b"}) == ""


def test_what_is_missing_unknown_or_of_another_shape_is_counted_and_the_first_named():
    stored = {"b": torch.zeros(4), "x": torch.zeros(1), "y": torch.zeros(1)}
    assert describe_mismatch(stored, OWN, {"a", "b"}) == (
        "lacks 1 weights (a ...), has no place for 2 weights (x ...), has in another shape 1 weights (b ...)"
    )


def test_trained_weights_that_the_next_checkpoint_would_lose_are_named():
    found = describe_mismatch(OWN, OWN, {"a", "b"})
    assert found == "holds 1 weights (frozen ...) that are frozen here"
