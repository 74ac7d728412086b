"""HTML and SVG as values: whatever is not markup yet is text, and text is escaped.

element("p", "a < b ", element("b", "now"), class_="note")
    -> <p class="note">a &lt; b <b>now</b></p>
"""

import html
from collections.abc import Sequence
from typing import TypeAlias

VOID = {"br", "hr", "img", "meta"}  # elements that have no end


class Markup(str):
    """Text that is markup already and is not escaped again."""


Content: TypeAlias = "str | float | None | Sequence[Content]"


def join(*content: Content) -> Markup:
    """One markup of all parts in their order; None is nothing."""
    parts: list[str] = []
    for part in content:
        if isinstance(part, Markup):
            parts.append(part)
        elif isinstance(part, Sequence) and not isinstance(part, str):
            parts.append(join(*part))
        elif part is not None:
            parts.append(html.escape(str(part)))
    return Markup("".join(parts))


def element(
    name: str, /, *content: Content, **attributes: str | float | None
) -> Markup:
    """An element; attributes that are None are left out.

    An attribute is written as a Python name: `class_` is class, `stroke_width` is
    stroke-width.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*content)}</{name}>")
