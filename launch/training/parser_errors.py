"""One line on what is wrong with an option, out of the parser's account of all that it tried."""

from __future__ import annotations

import re

from gesso.common.text import one_line

#: So much of a value is repeated.
LONGEST = 60


def parser_error(message: str) -> str:
    """What is wrong, in one line that names the option; a text of no known form stays as it is."""
    text = one_line(message)
    return _unknown(text) or _of_a_class(text) or _of_several_types(text) or _of_one_type(text) or text


def _unknown(text: str) -> str | None:
    found = re.fullmatch(r"Option '([\w.]+)' is not accepted|Group '([\w.]+)' does not accept option '([\w.]+)'", text)
    if not found:
        return None
    name = found[1] or f"{found[2]}.{found[3]}"
    return f"no option {name}; `gesso fit --help` lists them"


def _of_a_class(text: str) -> str | None:
    """Of an option that a class has, or has not, or that its constructor has refused."""
    section = _section(text)
    inner = re.search(
        r"Problem with given class_path '([\w.]*?)(\w+)': (.*?)"
        r"(?: - (?:Expected a <class 'NoneType'>|Not a valid).*|$)",
        text,
    )
    if not inner:
        # So it says what a constructor has refused, of a class that is named by its whole path.
        refused = re.search(r"Errors: - (.*?) - Expected a <class 'NoneType'>.*class_path='[\w.]*?(\w+)'", text)
        return f"{refused[2]}: {refused[1]}" if refused else None
    package, name, told = inner.groups()
    if re.search(r"No module named|has no attribute|annot import|[Ii]mport path", told):
        return (
            f"{section}: {package}{name} cannot be imported ({told}): check its path, and that its package is "
            "installed or its folder on PYTHONPATH"
        )
    ours = package.partition(".")[0] in ("lightning_modules", "datamodules")
    listing = f"`gesso fit --{section}.help {name if ours else package + name}` lists its options"
    if unknown := re.search(r"Option '([\w.]+)' is not accepted|does not accept option '([\w.]+)'", told):
        return f"{section}: {name} has no option {unknown[1] or unknown[2]}; {listing}"
    option = re.match(r'Parser key "([\w.]+)": (.*)', told)
    if not option:
        return f"{section}: {name}: {told}; {listing}"
    path = f"{section}.{option[1]}"
    return f"{_of_several_types(told, path) or _of_one_type(told, path) or f'{path}: {option[2]}'}; {listing}"


def _of_several_types(text: str, name: str | None = None) -> str | None:
    found = re.match(
        r'Parser key "([\w.]+)": (?:- Expected a path .*? )?(?:- )?Does not validate against any of the Union subtypes '
        r"Subtypes: .*? Errors: - (.*) "
        r"Given value type: .*? Given value: (.*)",
        text,
    )
    if not found:
        return None
    name = name or found[1]
    tried = re.split(r" - (?=Expected|Not |Problem|Import|No module|Key )", found[2])
    if name in ("model", "data"):
        return f"{name}: {tried[0]}"
    wanted = [re.fullmatch(r"Expected an? (.*?)(?:\. Got value: .*)?", told) for told in tried]
    kinds = [_kind(match[1]) for match in wanted if match]
    others = [told for told, match in zip(tried, wanted, strict=True) if not match]
    if others and len(kinds) < 2:
        return f"{name} is {_short(found[3])}: {_short(others[0], 200)}"
    return f"{name} is {_short(found[3])}; it must be {' or '.join(dict.fromkeys(kinds))}"


def _of_one_type(text: str, name: str | None = None) -> str | None:
    found = re.match(r'Parser key "([\w.]+)": Expected an? (.*?)\. Got value: (.*)', text)
    return f"{name or found[1]} is {_short(found[3])}; it must be {_kind(found[2])}" if found else None


def _section(text: str) -> str:
    found = re.match(r'Parser key "([\w.]+)"', text)
    return found[1] if found else "model"


def _kind(name: str) -> str:
    """A type in words: ``one of 'min', 'max'``, ``int``, ``null``."""
    if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", name):
        return f"one of {literal[1]}"
    bare = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", name)
    if re.match(r"(?:[\w.]*\.)?(?:Sequence|[Ll]ist|[Tt]uple)\b", bare):
        return "a list"
    return {"NoneType": "null", "str": "text", "int": "a whole number", "float": "a number"}.get(bare, f"a {bare}")


def _short(value: str, length: int = LONGEST) -> str:
    return value if len(value) <= length else f"{value[:length]} ..."
