"""A whole condition in words, as `conditions.words` gives those of a single question."""

from serving.rules.conditions import All, Any, Condition, Not, words


def phrase(condition: Condition, inner: bool = False) -> str:
    """The condition in words. inner: as a part of another one, so in brackets where it has parts itself.

    >>> from serving.rules.conditions import Compare
    >>> phrase(All((Compare("a", ">", 1), Not(Any((Compare("b", "==", 2), Compare("c", "==", 3)))))))
    'a > 1 and not (b == 2 or c == 3)'
    """
    match condition:
        case Not(part=part):
            return f"not {phrase(part, inner=True)}"
        case All(parts=(part,)) | Any(parts=(part,)):
            return phrase(part, inner)
        case All(parts=parts) | Any(parts=parts):
            joined = (" and " if isinstance(condition, All) else " or ").join(phrase(p, inner=True) for p in parts)
            return f"({joined})" if inner else joined
        case _:
            return words(condition)
