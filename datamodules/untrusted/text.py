"""Texts from elsewhere in messages: short, and without characters that a terminal would act upon."""

_MAX_LETTERS = 100


def shorten(value: object) -> str:
    """Return a value as a message can show it: on one line, quoted if it is a text, cut off if it is long.

    Args:
        value: a text, or something whose text is taken without quotes.
    """
    text = value if isinstance(value, str) else str(value)
    cut = text if len(text) <= _MAX_LETTERS else text[:_MAX_LETTERS] + "..."
    return repr(cut) if isinstance(value, str) else repr(cut)[1:-1]
