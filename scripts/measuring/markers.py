"""Replaces generated text in a page."""

import re


def replaced(page: str, section: str, text: str) -> str:
    """Put a text between the markers of a section.

    Raises:
        ValueError: the page does not have the markers once.
    """
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    found = len(pattern.findall(page))
    if found != 1:
        raise ValueError(f"the page has {found} places for the section {section}")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)
