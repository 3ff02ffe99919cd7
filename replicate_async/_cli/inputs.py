"""The values of inputs, which are given as text on the command line or in files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from replicate_async import exceptions

from .files import Files


@attrs.frozen
class InputTypes:
    """The types of a model's inputs, as far as they are known. They tell how text is parsed."""

    _annotations: Mapping[str, Any]
    _files: Files = attrs.field(factory=Files)

    @classmethod
    def of(cls, signature: inspect.Signature, files: Files = Files()) -> InputTypes:  # noqa: B008  (it is frozen)
        """Return the types that the signature of a model function shows.

        Args:
            signature: The signature.
            files: The files that inputs may name.
        """
        return cls(
            {
                name: parameter.annotation
                for name, parameter in signature.parameters.items()
                if parameter.kind is not parameter.VAR_KEYWORD
            },
            files,
        )

    def value(self, name: str, text: str, *, decimal_comma: bool = False) -> Any:
        """Return the value of an input that is given as text.

        Args:
            name: The input.
            text: The text. One that begins with @ names a file; @@ stands for @ itself.
            decimal_comma: Whether numbers may be written as in `0,5`.
        """
        annotation = self._annotations.get(name, Any)
        types = _alternatives(annotation)
        if text.startswith("@") and self._files.is_on:
            return _file_or_text(text, name, annotation, self._files)
        if str in types or Path in types:
            return text
        if bool in types and text.strip().lower() in ("true", "false"):
            return text.strip().lower() == "true"
        if decimal_comma and types & {int, float} and text.count(",") == 1:
            text = text.replace(",", ".")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return text
        if isinstance(value, float) and value.is_integer() and int in types:
            return int(value)
        return self.json(name, value)

    def json(self, name: str, value: Any) -> Any:
        """Return a JSON value of an input, in which texts that begin with @ are replaced by files."""
        if not self._files.is_on:
            return value
        return _with_files(value, name, self._annotations.get(name, Any), self._files)


def _alternatives(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows; texts to choose from count as `str`."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return {kind for member in get_args(annotation) for kind in _alternatives(member)}
    if origin is Literal:
        return {type(choice) for choice in get_args(annotation)}
    return {annotation}


def _is_text(annotation: Any) -> bool:
    """Tell whether an input is text, and no file."""
    types = _alternatives(annotation)
    return str in types and Path not in types


def _items(annotation: Any) -> Any:
    """Return the annotation of the items of a list."""
    for kind in _alternatives(annotation):
        if get_origin(kind) is list:
            return get_args(kind)[0]
    return Any


def _with_files(value: Any, name: str, annotation: Any, files: Files) -> Any:
    if isinstance(value, str):
        return _file_or_text(value, name, annotation, files) if value.startswith("@") else value
    if isinstance(value, list):
        items = _items(annotation)
        return [
            _with_files(item, f"{name}[{index}]", items, files) for index, item in enumerate(value)
        ]
    if isinstance(value, dict):
        return {key: _with_files(item, f"{name}.{key}", Any, files) for key, item in value.items()}
    return value


def _file_or_text(text: str, name: str, annotation: Any, files: Files) -> Path | str:
    """Return the file that text beginning with @ names, its content if the input is text, or the text after @@."""
    if text.startswith("@@"):
        return text[1:]
    try:
        path = files.find(text[1:])
        if _is_text(annotation):
            return path.read_bytes().decode("utf-8-sig")
        with path.open("rb"):
            return path
    except UnicodeDecodeError:
        raise exceptions.ArgumentError(
            name, f"{text[1:]!r} is not UTF-8, and the model expects text"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError(name, f"{text[1:]!r} cannot be read: {reason}") from error


def split_pair(pair: str) -> tuple[str, str]:
    """Return the name and the text of `NAME=VALUE`."""
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise exceptions.ArgumentError(pair, "an input has the form NAME=VALUE")
    return name, text


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        ValueError: It has none.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    return row


def _refuse_constant(text: str) -> Any:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(text)
