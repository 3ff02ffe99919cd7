"""The OpenAPI schema of a version: its inputs and its output (:api:`version-schema`).

Pure, and lenient: what a schema leaves out, or describes in an unknown way, is not restricted.
"""

from __future__ import annotations

import difflib
import inspect
import json
import keyword
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from enum import Enum
from typing import Any, Final, Literal

import attrs

from .._codec import decode_json
from .._display import shortened
from .._files.holders import ModelFile, is_file
from .._json import digits_of, shown
from .._redaction import REDACTED, holds_secret
from ..types import File

_MAX_DEPTH: Final = 16
"""Maximum depth of references and lists within each other."""


_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "object": dict[str, Any],
}


_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""The beginning of a URL; a single letter would be a drive of Windows."""


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final = _Missing.MISSING
"""The default of an input that has none, since `null` is a value."""


@attrs.frozen
class InputField:
    """An input of a model, or an item of an input that is a list."""

    name: str
    """Name."""
    type: str | None = None
    """JSON type; None if it is not restricted."""
    description: str = ""
    """Description."""
    default: Any = MISSING
    """Default value."""
    required: bool = False
    """Whether the input must be given."""
    nullable: bool = False
    """Whether `null` is allowed."""
    is_file: bool = False
    """Whether the value is a file."""
    choices: tuple[Any, ...] = ()
    """Allowed values; empty if they are not restricted."""
    minimum: float | None = None
    """Minimum of a number."""
    maximum: float | None = None
    """Maximum of a number."""
    min_length: int | None = None
    """Minimum length of a text."""
    max_length: int | None = None
    """Maximum length of a text."""
    items: InputField | None = None
    """Description of the items of a list."""
    deprecated: bool = False
    """Whether the input is deprecated."""
    is_secret: bool = False
    """Whether the value, or a part of it, is to be kept secret."""

    def annotation(self, file: Any) -> Any:
        """Return the type for a signature.

        Args:
            file: The type of files.
        """
        if self.choices and all(
            isinstance(c, (str, int, bool)) and _has_repr(c) for c in self.choices
        ):
            found: Any = Literal[self.choices]
        elif self.is_file:
            found = file
        elif self.type == "array":
            found = list[self.items.annotation(file) if self.items else Any]  # type: ignore[misc]  # at run time
        else:
            found = _TYPES.get(self.type or "", Any)
        if found is not Any and (self.nullable or (not self.required and self.default is MISSING)):
            found = found | None
        return found

    @property
    def parameter_default(self) -> Any:
        """The default for a signature: `...` for one that Python cannot show, None for an input that may be left out."""
        if self.required:
            return inspect.Parameter.empty
        if self.default is MISSING:
            return None
        return self.default if _has_repr(self.default) else ...

    @property
    def type_text(self) -> str:
        """The type as text."""
        if self.choices:
            return " | ".join(map(_text, self.choices))
        if self.is_file:
            return "file"
        if self.type == "array":
            return f"list of {self.items.type_text if self.items else 'anything'}"
        names = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
        return names.get(self.type or "", self.type or "anything")

    @property
    def bounds(self) -> str:
        """The bounds as text."""
        said: list[str] = []
        if self.minimum is not None and self.maximum is not None:
            said.append(f"from {_number_text(self.minimum)} to {_number_text(self.maximum)}")
        elif self.minimum is not None:
            said.append(f"{_number_text(self.minimum)} or more")
        elif self.maximum is not None:
            said.append(f"{_number_text(self.maximum)} or less")
        if self.min_length is not None:
            said.append(f"{_number_text(self.min_length)} characters or more")
        if self.max_length is not None:
            said.append(f"{_number_text(self.max_length)} characters or fewer")
        return ", ".join(said)


def _number_text(value: float) -> str:
    """Return a number as text: whole ones in full, others with six digits."""
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e21):
        return f"{value:g}"
    try:
        return digits_of(int(value))
    except ValueError:
        return f"{'-' if value < 0 else ''}2**{int(value).bit_length() - 1}"


def _text(value: object) -> str:
    """Return the `repr` of what a schema or a user gives, however long and deep it is."""
    return shown(shortened(value))


def _has_repr(value: object) -> bool:
    """Return whether Python shows a value, as a signature needs it: not an integer of thousands of digits."""
    try:
        return bool(repr(value))
    except (ValueError, RecursionError):
        return False


@attrs.frozen
class Problem:
    """A problem with an input."""

    name: str
    """Name of the input."""
    text: str
    """Description of the problem."""
    is_type: bool
    """Whether the input is unknown, missing or of a wrong type; else its value is not allowed."""


@attrs.frozen
class ModelSchema:
    """The inputs and the output of a version."""

    inputs: Mapping[str, InputField]
    """The inputs, in their order."""
    output: Mapping[str, Any]
    """The schema of the output."""
    iterates: bool
    """Whether the output grows item by item."""
    concatenates: bool
    """Whether the items of the output are pieces of one text."""
    takes_others: bool
    """Whether there may be inputs that the schema does not name."""
    _components: Mapping[str, Any] = attrs.field(repr=False)

    # Inputs

    def problems(
        self, given: Mapping[str, Any], is_pending: Callable[[Any], bool] = lambda _: False
    ) -> list[Problem]:
        """Check inputs.

        Args:
            given: The inputs.
            is_pending: Tells whether a value stands for one that is not known yet, which cannot be checked.

        Returns:
            The problems.
        """
        found: list[Problem] = []
        if not self.inputs:
            return found  # without inputs, the schema does not describe them
        for name, value in given.items():
            field = self.inputs.get(name)
            if field is None and self.takes_others:
                continue
            if field is None:
                found.append(Problem(name, f"there is no such input{self._meant(name)}", True))
            else:
                found += _problems(field, value, name, is_pending)
        found += [
            Problem(field.name, "it is required", True)
            for field in self.inputs.values()
            if field.required and field.name not in given
        ]
        return found

    @property
    def secrets(self) -> frozenset[str]:
        """The names of the inputs that are to be kept secret."""
        return frozenset(field.name for field in self.inputs.values() if field.is_secret)

    def _meant(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.inputs, n=1, cutoff=0.5)
        if close:
            return f"; did you mean {close[0]!r}?"
        return f"; there are {', '.join(map(repr, self.inputs))}"

    def signature(self, file: Any, made: Any) -> inspect.Signature:
        """Return the signature of a function of these inputs.

        Args:
            file: The type of files in the input.
            made: The type of files in the output.
        """
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.parameter_default,
                annotation=field.annotation(file),
            )
            for field in self.inputs.values()
            if _is_parameter(field.name)
        ]
        if self.takes_others:
            name = "others"
            while name in self.inputs:
                name = f"{name}_"
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.VAR_KEYWORD, annotation=Any)
            )
        returned = self._annotation(self.output, made, 0)
        return inspect.Signature(
            parameters, return_annotation=str if self.concatenates else returned
        )

    def _annotation(self, node: object, file: Any, depth: int) -> Any:
        node = self._resolved(node)
        kind = node.get("type")
        if kind == "string" and node.get("format") == "uri":
            return file
        if kind == "array" and depth < _MAX_DEPTH:
            return list[self._annotation(node.get("items"), file, depth + 1)]  # type: ignore[misc]
        return _TYPES.get(kind, Any) if isinstance(kind, str) else Any

    def described(self) -> str:
        """Return a description of the inputs and the output as text."""
        lines = ["Inputs:"] if self.inputs else []
        for field in self.inputs.values():
            line = f"    {field.name}: {field.type_text}"
            if field.required:
                line += ", required"
            elif field.default is not MISSING:
                line += f" = {_text(field.default)}"
            if field.bounds:
                line += f", {field.bounds}"
            if field.deprecated:
                line += ", deprecated"
            if not _is_parameter(field.name):
                line += f"; pass it as **{{{json.dumps(field.name, ensure_ascii=False)}: ...}}"
            lines.append(line)
            for paragraph in field.description.splitlines():
                lines += textwrap.wrap(
                    paragraph, 96, initial_indent=" " * 8, subsequent_indent=" " * 8
                )
        if self.takes_others:
            lines.append("    and inputs of other names")
        lines += ["", "Output:", f"    {self._output_text()}"]
        return "\n".join(lines).strip()

    def _output_text(self) -> str:
        if self.concatenates:
            return "text, piece by piece"
        return self._node_text(self.output, 0) + (", one by one" if self.iterates else "")

    def _node_text(self, node: object, depth: int) -> str:
        node = self._resolved(node)
        kind = node.get("type")
        if kind == "string":
            return "file" if node.get("format") == "uri" else "text"
        if kind == "array" and depth < _MAX_DEPTH:
            return f"list of {self._node_text(node.get('items'), depth + 1)}"
        return kind if isinstance(kind, str) else "anything"

    # Output

    @property
    def makes_text(self) -> bool:
        """Whether the output is a text, or a list of texts; a file is a text with `format: uri`."""
        node = self._resolved(self.output)
        if node.get("type") == "array":
            node = self._resolved(node.get("items"))
        return node.get("type") == "string" and node.get("format") != "uri"

    def convert(self, value: Any, file: Callable[[str], Any], guess: Callable[[Any], Any]) -> Any:
        """Return an output as users see it: text joined, files as files.

        Args:
            value: The output as the API sends it.
            file: Makes a file of its URL.
            guess: Converts what the schema does not describe.
        """
        if self.concatenates and isinstance(value, list):
            if all(isinstance(item, str) for item in value):
                return "".join(value)
            return value
        return self._converted(self.output, value, file, guess, 0)

    def convert_item(
        self, value: Any, file: Callable[[str], Any], guess: Callable[[Any], Any]
    ) -> Any:
        """Return an item of an output as users see it; it may be the text of an event."""
        node = self._resolved(self.output)
        if node.get("type") == "array":
            node = self._resolved(node.get("items"))
        if isinstance(value, str) and node.get("type") in (
            "integer",
            "number",
            "boolean",
            "array",
            "object",
        ):
            try:
                value = decode_json(value)
            except ValueError:
                return value  # as it came
        return self._converted(node, value, file, guess, 0)

    def _converted(
        self,
        node: object,
        value: Any,
        file: Callable[[str], Any],
        guess: Callable[[Any], Any],
        depth: int,
    ) -> Any:
        node = self._resolved(node)
        kind = node.get("type")
        if depth > _MAX_DEPTH:
            return guess(value)
        if isinstance(value, str) and kind == "string":
            return file(value) if node.get("format") == "uri" and value else value
        if isinstance(value, list) and kind == "array" and "items" in node:
            items = node["items"]
            return [self._converted(items, item, file, guess, depth + 1) for item in value]
        if isinstance(value, dict) and kind == "object":
            properties = node.get("properties")
            rest = node.get("additionalProperties")
            known = properties if isinstance(properties, Mapping) else {}
            return {
                key: self._converted(known.get(key, rest), item, file, guess, depth + 1)
                for key, item in value.items()
            }
        return guess(value)

    def _resolved(self, node: object) -> Mapping[str, Any]:
        return _resolved(node, self._components)


def _is_parameter(name: str) -> bool:
    """Return whether Python code can name an argument like this."""
    return name.isidentifier() and not keyword.iskeyword(name)


def read_schema(document: object, cog_version: str | None) -> ModelSchema | None:
    """Read the OpenAPI document of a version.

    Args:
        document: The document.
        cog_version: The version of Cog that made it: those below 0.3.9 do not mark iterators.

    Returns:
        The schema; None if the document does not describe inputs and output.
    """
    match document:
        case {"components": {"schemas": Mapping() as components}}:
            pass
        case _:
            return None
    given = _resolved(components.get("Input"), components)
    output = _resolved(components.get("Output"), components)
    if not given and not output:
        return None
    concatenates = output.get("x-cog-array-display") == "concatenate"
    iterates = output.get("x-cog-array-type") == "iterator" or (
        output.get("type") == "array" and is_below(cog_version, (0, 3, 9))
    )
    takes_others = isinstance(given.get("additionalProperties"), Mapping) or (
        given.get("additionalProperties") is True
    )
    return ModelSchema(
        _inputs(given, components), output, iterates, concatenates, takes_others, components
    )


def _inputs(given: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, InputField]:
    properties = given.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    required = given.get("required")
    names = required if isinstance(required, list) else []
    nodes = [
        (name, _resolved(node, components))
        for name, node in properties.items()
        if isinstance(name, str)
    ]
    nodes.sort(key=lambda entry: _order(entry[1]))
    return {name: _field(name, node, components, required=name in names) for name, node in nodes}


def _order(node: Mapping[str, Any]) -> float:
    order = node.get("x-order")
    return order if isinstance(order, (int, float)) else math.inf


def _field(
    name: str,
    node: Mapping[str, Any],
    components: Mapping[str, Any],
    *,
    required: bool = False,
    depth: int = 0,
) -> InputField:
    kind = node.get("type")
    description = node.get("description")
    choices = node.get("enum")
    nullable = node.get("nullable") is True
    items = node.get("items")
    if isinstance(kind, list):  # as later drafts of JSON Schema have it
        nullable = nullable or "null" in kind
        others = [one for one in kind if one != "null"]
        kind = others[0] if len(others) == 1 else None
    field_of_items = None
    if isinstance(items, Mapping) and depth < _MAX_DEPTH:
        resolved = _resolved(items, components)
        field_of_items = _field(name, resolved, components, required=True, depth=depth + 1)
    return InputField(
        name,
        type=kind if isinstance(kind, str) else None,
        description=description if isinstance(description, str) else "",
        default=node.get("default", MISSING),
        required=required,
        nullable=nullable,
        is_file=kind == "string" and node.get("format") == "uri",
        choices=tuple(choices) if isinstance(choices, list) else (),
        minimum=_number(node.get("minimum")),
        maximum=_number(node.get("maximum")),
        min_length=_whole(node.get("minLength")),
        max_length=_whole(node.get("maxLength")),
        items=field_of_items,
        deprecated=node.get("deprecated") is True,
        is_secret=holds_secret(node, components),
    )


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _resolved(node: object, components: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with references, and unions of one member, replaced by what they stand for."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(node, Mapping):
            return {}
        reference = node.get("$ref")
        parts = node.get("allOf")
        options = node.get("anyOf") or node.get("oneOf")
        if isinstance(reference, str):
            found = components.get(reference.rpartition("/")[2])
            others = {key: value for key, value in node.items() if key != "$ref"}
        elif isinstance(parts, list) and len(parts) == 1:
            found = parts[0]
            others = {key: value for key, value in node.items() if key != "allOf"}
        elif isinstance(options, list):
            some = [o for o in options if not (isinstance(o, Mapping) and o.get("type") == "null")]
            if len(some) != 1:
                return node
            found = some[0]
            others = {key: value for key, value in node.items() if key not in ("anyOf", "oneOf")}
            if len(some) < len(options):
                others["nullable"] = True
        else:
            return node
        # What stands beside a reference is more specific.
        node = {**(found if isinstance(found, Mapping) else {}), **others}
    return {}


def _problems(
    field: InputField, value: Any, path: str, is_pending: Callable[[Any], bool]
) -> Iterable[Problem]:
    """Yield the problems of one value, and of the items in it."""
    if is_pending(value):
        return
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        if not field.nullable:
            yield Problem(path, "it cannot be None", True)
    elif not _fits(field, value):
        yield Problem(path, _misfit(field, value), True)
    elif (text := _why_not_allowed(field, value)) is not None:
        yield Problem(path, text, False)
    elif isinstance(value, (list, tuple)) and field.items is not None and not field.choices:
        for index, item in enumerate(value):
            yield from _problems(field.items, item, f"{path}[{index}]", is_pending)


def _why_not_allowed(field: InputField, value: Any) -> str | None:
    """Return the reason why a value of the right type is not allowed; None if it is."""
    if field.choices:
        return _why_no_choice(field, value)
    if isinstance(value, (int, float)):
        below = field.minimum is not None and value < field.minimum
        above = field.maximum is not None and value > field.maximum
        if below or above:
            given = _text(REDACTED if field.is_secret else value)
            return f"{given} is out of bounds: {field.bounds}"
    if isinstance(value, str):
        short = field.min_length is not None and len(value) < field.min_length
        long = field.max_length is not None and len(value) > field.max_length
        if short or long:
            return f"it has {len(value)} characters: {field.bounds}"
        if field.is_file and (not _URL.match(value) or value.lower().startswith("file:")):
            given = REDACTED if field.is_secret else value[:100]
            return (
                f"{given!r} is not a URL that the model can fetch; for a file on this machine, pass pathlib.Path(...),"
                " or @PATH in a shell"
            )
    return None


def _why_no_choice(field: InputField, value: Any) -> str | None:
    """Return the reason why a value is none of the choices; None if it is one."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if plain in field.choices:
        return None
    if field.is_secret:
        return "it is none of the allowed values"
    allowed = ", ".join(map(_text, field.choices))
    choices = [_plain(choice) for choice in field.choices]
    close = difflib.get_close_matches(_plain(plain), choices, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{_text(plain)} is none of {allowed}{meant}"


def _plain(value: object) -> str:
    return value[:1000] if isinstance(value, str) else _text(value)[:1000]


def _fits(field: InputField, value: Any) -> bool:
    if hasattr(value, "tolist"):
        return True  # of NumPy and its kin
    match field.type:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "string":
            # Dates become text, and files the URL of what is uploaded.
            return isinstance(value, (str, date)) or _may_be_file(value)
        case "array":
            return isinstance(value, (list, tuple, set, frozenset))
        case "object":
            return isinstance(value, Mapping)
        case _:
            return True


def _may_be_file(value: Any) -> bool:
    return isinstance(value, (File, ModelFile)) or is_file(value)


def _misfit(field: InputField, value: Any) -> str:
    text = _text(REDACTED if field.is_secret else value)
    if len(text) > 60:
        text = f"a {type(value).__name__}"
    return f"expected {field.type_text}, got {text}"


_VERSION: Final = re.compile(
    # PEP 440, without the groups that do not matter here
    r"\s*v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?P<pre>[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?\d*)?"
    r"(?P<post>-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?"
    r"(?P<dev>[-_.]?dev[-_.]?\d*)?"
    r"(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?\s*",
    re.IGNORECASE | re.ASCII,
)


def is_below(version: str | None, bound: tuple[int, ...]) -> bool:
    """Return whether a version is below a release by the order of PEP 440; False if it is not a version."""
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if found is None or int(found["epoch"] or 0) > 0:
        return False
    release = [int(part[:9]) for part in found["release"].split(".")]
    length = max(len(release), len(bound))
    release += [0] * (length - len(release))
    limit = list(bound) + [0] * (length - len(bound))
    if release != limit:
        return release < limit
    # 0.3.9rc1 and 0.3.9.dev1 come before 0.3.9; 0.3.9.post1.dev1 comes after.
    return bool(found["pre"] or (found["dev"] and not found["post"]))
