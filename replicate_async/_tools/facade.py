"""Writes `sync/_facade.py`: a twin for each active class of the async client."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from .annotations import Function, alternatives, argument, decorators, evaluate, head, names, yields
from .docstrings import translated
from .sources import (
    LISTING,
    MANAGERS,
    OF_STREAMS,
    PACKAGE,
    ROOT,
    STREAMS,
    TREES,
    Class,
    Member,
    Module,
    Sources,
    Unsupported,
    is_public,
)

Kind: TypeAlias = Literal["call", "iterate", "hold", "plain"]

ASYNC_ONLY: Final = STREAMS | MANAGERS | {"Awaitable", "Coroutine"}
RENAMED: Final = {
    **dict.fromkeys(STREAMS, "Stream"),
    "AbstractAsyncContextManager": "AbstractContextManager",
    LISTING: "Page",
}

BY_HAND: Final = {
    "Client.paginate": "paginate",
    "Outcomes.collect": "collect_outcomes",
    "OutputStream.collect": "collect_output",
    "Receiver.on": "register_handler",
}
"""Functions of the runtime, for methods that need to know of the facade: one takes methods of it, some what its
streams hold ready, and one functions that take twins."""

OF_FILES: Final = {
    "FileOutput._repr_mimebundle_": "show_file",
    "FileOutput.save": "save_file",
    "Outcome._repr_html_": "show_files",
    "Prediction._repr_html_": "show_files",
}
"""Functions of `_twin`, for methods that download what a notebook displays, or note that a file was saved."""

IN_TWIN: Final = {**BY_HAND, **OF_FILES}
"""All functions of `_twin` for methods."""

BOTH_WORLDS: Final = {"FileOutput": frozenset({"aread", "__aiter__"})}
"""What stays asynchronous, for callers inside of an event loop (see `README.md`)."""

ASYNC_WORLD: Final = {"Receiver": frozenset({"asgi", "aiohttp", "django"})}
"""What only the async world has; a mixin may have it in another form."""

MIXINS: Final = {
    "FileOutput": "FileMixin",
    "ModelFunction": "FunctionMixin",
    "Receiver": "ReceiverMixin",
    "StreamingFunction": "FunctionMixin",
}
"""What only the sync world has: classes of the runtime."""

OPERATORS: Final = {
    "__bool__": "bool(self._async)",
    "__contains__": "{} in self._async",
    "__getitem__": "self._async[{}]",
    "__iter__": "iter(self._async)",
    "__len__": "len(self._async)",
}
"""How special methods are called."""

DOCSTRING: Final = "The sync twins of the async client's active classes."


RUNTIME: Final = {
    "AbstractContextManager": "from contextlib import AbstractContextManager",
    "Any": "from typing import Any",
    "AsyncIterator": "from collections.abc import AsyncIterator",
    "Coroutine": "from collections.abc import Coroutine",
    "FunctionMixin": "from ._twin import FunctionMixin",
    "ReceiverMixin": "from ._receivers import ReceiverMixin",
    "Generic": "from typing import Generic",
    "Iterator": "from collections.abc import Iterator",
    "Held": "from ._streams import Held",
    "Lease": "from ._lease import Lease",
    "FileMixin": "from ._twin import FileMixin",
    "Self": "from typing import Self",
    "Stream": "from ._streams import Stream",
    "StreamTwin": "from ._twin import StreamTwin",
    "TWINS": "from ._twin import TWINS",
    "Twin": "from ._twin import Twin",
    "TypeVar": "from typing import TypeVar",
    "cast": "from typing import cast",
    "collect_outcomes": "from ._twin import collect_outcomes",
    "collect_output": "from ._twin import collect_output",
    "file_stream": "from ._streams import file_stream",
    "overload": "from typing import overload",
    "paginate": "from ._twin import paginate",
    "register_handler": "from ._receivers import register_handler",
    "save_file": "from ._twin import save_file",
    "show_file": "from ._twin import show_file",
    "show_files": "from ._twin import show_files",
    "unwrap": "from ._twin import unwrap",
    "unwrap_inputs": "from ._twin import unwrap_inputs",
    "wrap": "from ._twin import wrap",
    "wrap_all": "from ._twin import wrap_all",
    "wrap_error": "from ._errors import wrap_error",
}
"""What the generated code itself needs."""


class Generator(Sources):
    """Writes the twins of the active classes."""

    def __init__(self, package: Path = PACKAGE) -> None:
        super().__init__(package)
        self.used: set[str] = set()
        """Names of the runtime that the generated code needs."""
        self.annotated: dict[str, Module] = {}
        """Names in its annotations, and the modules that know them."""
        self.by_hand: set[str] = set()
        """The methods that call functions written by hand."""

    # Types

    def _type(self, node: ast.expr, module: Module, where: str) -> str:
        """Translate an annotation, and note what it needs imported."""
        generator = self

        class Translate(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.AST:
                return ast.Name(RENAMED.get(node.id, node.id))

            def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
                if head(node) == "AsyncGenerator":
                    node.slice = argument(node)
                if head(node) == "Callable" and names(node) & generator.active.keys():
                    raise Unsupported(where, node, "a function of active objects")
                return self.generic_visit(node)

        translated = Translate().visit(evaluate(node))
        for name in names(translated):
            self.annotated[name] = module
        return ast.unparse(translated)

    def _parameter_type(self, node: ast.expr, module: Module, where: str) -> str:
        members = alternatives(evaluate(node))
        kept = [member for member in members if head(member) not in ASYNC_ONLY]
        if not kept:
            raise Unsupported(where, node, "a parameter that accepts only asynchronous things")
        return " | ".join(self._type(member, module, where) for member in kept)

    def _holds_active(self, node: ast.expr, parameters: Sequence[str]) -> bool:
        return bool(names(node) & {*self.active, *TREES, *parameters})

    def _wrap(
        self, annotation: ast.expr, value: str, item: Class, module: Module, where: str
    ) -> str:
        """Return an expression that turns the async *value* into its twin."""
        node = evaluate(annotation)
        if "Exception" in names(node):
            self.used.add("wrap_error")
            return f"wrap_error(self._lease, {value})"
        if not self._holds_active(node, item.parameters):
            return value
        members = alternatives(node)
        concrete = [member for member in members if ast.unparse(member) != "None"]
        if len(members) == 1 and head(node) in self.active and head(node) != "Page":
            return self._twin_of(head(node), value)
        for member in concrete:
            self._check_wrappable(member, item, where)
        self.used.add("wrap")
        wrapped = f"wrap(self._lease, {value})"
        if head(node) in TREES:
            return wrapped
        self.used.add("cast")
        return f"cast({self._type(node, module, where)!r}, {wrapped})"

    def _check_wrappable(self, member: ast.expr, item: Class, where: str) -> None:
        """Complain of a result in which no twins can be put by looking at it."""
        if not self._holds_active(member, item.parameters) or isinstance(member, ast.Name):
            return
        if head(member) == "Page":
            return
        if head(member) in {"list", "dict"} and isinstance(member, ast.Subscript):
            inner = member.slice.elts[-1] if isinstance(member.slice, ast.Tuple) else member.slice
            for each in alternatives(inner):
                self._check_wrappable(each, item, where)
            return
        raise Unsupported(where, member, f"{ast.unparse(member)} as a result")

    def _twin_of(self, name: str, value: str) -> str:
        made = f"{name}._of" if self._is_constructed(self.active[name]) else name
        return f"{made}(self._lease, {value})"

    def _is_constructed(self, item: Class) -> bool:
        """Tell whether users make such objects themselves."""
        return item.name == ROOT

    # Functions

    def _signature(self, member: Member, where: str) -> tuple[str, str]:
        """Return the parameters, and the arguments that pass them on."""
        function, module = member.function, member.home.module
        arguments = copy.deepcopy(function.args)
        passed: list[str] = []
        positional = [*arguments.posonlyargs, *arguments.args]
        for index, each in enumerate(positional + arguments.kwonlyargs):
            if index == 0:
                continue
            if each.annotation is None:
                raise Unsupported(where, function, f"{each.arg} has no annotation")
            value = each.arg
            if names(each.annotation) & self.active.keys():
                self._check_unwrappable(each.annotation, where)
                self.used.add("unwrap")
                value = f"unwrap({value})"
            annotation = self._parameter_type(each.annotation, module, where)
            each.annotation = ast.parse(annotation, mode="eval").body
            by_name = index >= len(positional)
            passed.append(f"{each.arg}={value}" if by_name else value)
        if arguments.vararg:
            several = arguments.vararg.annotation
            if several is None or names(several) & self.active.keys():
                raise Unsupported(where, function, "*args without annotation, or of active objects")
            annotation = self._parameter_type(several, module, where)
            arguments.vararg.annotation = ast.parse(annotation, mode="eval").body
            passed.insert(len(positional) - 1, f"*{arguments.vararg.arg}")
        if arguments.kwarg:
            kind = arguments.kwarg.annotation
            if kind is None or ast.unparse(kind) != "Any":
                raise Unsupported(where, function, "**kwargs that are not `**inputs: Any`")
            self.annotated["Any"] = module
            self.used.add("unwrap_inputs")
            passed.append(f"**unwrap_inputs({arguments.kwarg.arg})")
        for default in filter(None, [*arguments.defaults, *arguments.kw_defaults]):
            if any(isinstance(node, ast.Name) for node in ast.walk(default)):
                raise Unsupported(where, function, f"the default {ast.unparse(default)}")
        return ast.unparse(arguments), ", ".join(passed)

    def _check_unwrappable(self, annotation: ast.expr, where: str) -> None:
        for member in alternatives(evaluate(annotation)):
            if isinstance(member, ast.Subscript) and names(member.slice) & self.active.keys():
                raise Unsupported(where, annotation, f"{ast.unparse(member)} as a parameter")

    def _kind(self, function: Function) -> Kind:
        if "asynccontextmanager" in decorators(function):
            return "hold"
        returns = evaluate(function.returns) if function.returns is not None else None
        outer = "" if returns is None else head(returns)
        if isinstance(function, ast.AsyncFunctionDef):
            if not yields(function):
                # A coroutine that gives an iterator would be awaited first.
                return "call"
            return "iterate"
        if outer == LISTING:
            return "call"
        if outer in STREAMS:
            return "iterate"
        return "hold" if outer in MANAGERS else "plain"

    def _result_type(self, item: Class, member: Member, kind: Kind, where: str) -> str:
        function, module = member.function, member.home.module
        if function.returns is None:
            raise Unsupported(where, function, "no return annotation")
        node = evaluate(function.returns)
        if kind == "call" and names(node) & (STREAMS | MANAGERS):
            raise Unsupported(where, function, f"a coroutine that returns {ast.unparse(node)}")
        if kind in {"call", "plain"} and names(node) & {"Awaitable", "Coroutine"}:
            raise Unsupported(where, function, f"{ast.unparse(node)} as a result")
        if kind == "hold":
            if isinstance(function, ast.AsyncFunctionDef) and names(node) & self.active.keys():
                raise Unsupported(where, function, "a context manager of active objects")
            self._check_wrappable(argument(node), item, where)
            self.annotated["AbstractContextManager"] = module
            return f"AbstractContextManager[{self._type(argument(node), module, where)}]"
        return self._type(node, module, where)

    def _function(self, item: Class, member: Member) -> Iterator[str]:
        function = member.function
        where = f"{item.name}.{function.name}"
        kind = self._kind(function)
        parameters, passed = self._signature(member, where)
        result = self._result_type(item, member, kind, where)
        if where in IN_TWIN:
            result = result.replace("Stream[", "Iterator[", 1)
            self.annotated["Iterator"] = member.home.module
        decorated = decorators(function)
        unknown = decorated - {"overload", "property", "asynccontextmanager"}
        if unknown:
            raise Unsupported(where, function, f"the decorator {', '.join(sorted(unknown))}")
        if "overload" in decorated:
            self.used.add("overload")
            yield "@overload"
        elif "property" in decorated:
            if kind != "plain":
                raise Unsupported(where, function, "a property that is to be awaited")
            yield "@property"
        yield f"def {function.name}({parameters}) -> {result}:"
        if "overload" in decorated:
            yield "    ..."
            return
        yield from self._doc(function, where)
        yield from ("    " + line for line in self._body(item, member, kind, passed, where))

    def _body(
        self, item: Class, member: Member, kind: Kind, passed: str, where: str
    ) -> Iterator[str]:
        function = member.function
        module = member.home.module
        assert function.returns is not None
        if where in IN_TWIN:
            self.by_hand.add(where)
            self.used.add(IN_TWIN[where])
            yield f"return {IN_TWIN[where]}({', '.join(filter(None, ['self', passed]))})"
            return
        node = evaluate(function.returns)
        target = f"self._async.{function.name}"
        if function.name == "__call__":
            target = "self._async"
        overloaded = (
            function.name not in OPERATORS
            and sum(m.function.name == function.name for m in self.members(item)) > 1
        )
        if overloaded:
            # The implementation accepts more than its overloads admit.
            self.used |= {"Any", "cast"}
            target = f"cast(Any, {target})"
        if kind == "call":
            call = f"self._lease.call({', '.join(filter(None, [target, passed]))})"
            if ast.unparse(node) == "None":
                yield call
            elif ast.unparse(node) == "Self":
                yield call
                yield "return self"
            elif head(node) == LISTING:
                yield f"return Page(self._lease, {call})"
            else:
                yield f"return {self._wrap(node, call, item, module, where)}"
        elif kind == "iterate":
            wrapping = ""
            if self._holds_active(argument(node), item.parameters):
                for each in alternatives(argument(node)):
                    self._check_wrappable(each, item, where)
                self.used.add("wrap_all")
                wrapping = ", wrap_all"
            yield f"return {self._iteration(node)}(self._lease, {target}({passed}){wrapping})"
        elif kind == "hold":
            self.used.add("Held")
            held = f"Held(self._lease, {target}({passed})"
            if self._holds_active(argument(node), item.parameters):
                self.used |= {"cast", "wrap"}
                result = self._result_type(item, member, kind, where)
                yield f"return cast({result!r}, {held}, wrap))"
            else:
                yield f"return {held})"
        else:
            called = OPERATORS.get(function.name, f"{target}({passed})").format(passed)
            if "property" in decorators(function):
                called = target
            yield from self._plain(item, node, called, module, where)

    def _plain(
        self, item: Class, node: ast.expr, called: str, module: Module, where: str
    ) -> Iterator[str]:
        """Yield the body of what needs no event loop."""
        if ast.unparse(node) == "None":
            yield called
        elif ast.unparse(node) == "Self":
            yield f"return self._of(self._lease, {called})"
        elif head(node) == "Iterator" and self._holds_active(node, item.parameters):
            self.used.add("wrap")
            yield f"return iter([wrap(self._lease, each) for each in {called}])"
        else:
            yield f"return {self._wrap(node, called, item, module, where)}"

    def _iteration(self, node: ast.expr) -> str:
        """Return the name of what iterates over what an annotation describes."""
        name = "file_stream" if ast.unparse(argument(node)) == "bytes" else "Stream"
        self.used.add(name)
        return name

    def _doc(self, node: Function | ast.ClassDef, where: str) -> Iterator[str]:
        doc = ast.get_docstring(node, clean=False)
        if doc is not None:
            yield f'    """{translated(doc, where)}"""'

    # Classes

    def _class(self, item: Class) -> Iterator[str]:
        parameters = item.parameters
        subscript = f"[{', '.join(parameters)}]" if parameters else ""
        # Its parameters are those of the twin: a page of predictions holds twins of predictions.
        wrapped = f"Async{item.name}" + (
            f"[{', '.join('Any' for _ in parameters)}]" if parameters else ""
        )
        is_stream = self.member(item, "__anext__") is not None
        bases = [f"Twin[{wrapped}]"]
        if is_stream:
            # A string: the items may be twins, which are defined further below.
            bases = [f"StreamTwin[{wrapped}, {self._item_type(item)!r}]"]
            self.used.add("StreamTwin")
        else:
            self.used.add("Twin")
        if item.name in MIXINS:
            bases.insert(0, MIXINS[item.name])
            self.used.add(MIXINS[item.name])
        if parameters:
            self.used |= {"Generic", "Any"}
            bases.append(f"Generic{subscript}")
        yield f"class {item.name}({', '.join(bases)}):"
        yield from self._doc(item.node, item.name)
        if not is_stream:
            yield ""
            yield "    __slots__ = ()"
        body = [*self._constructor(item), *self._fields(item)]
        for member in self.members(item):
            name = member.function.name
            if name in BOTH_WORLDS.get(item.name, ()):
                body += self._both(item, member)
            if (is_stream and name in OF_STREAMS) or name in ASYNC_WORLD.get(item.name, ()):
                continue
            if name == "__aiter__":
                body += self._iter(item, member)
            elif name in {"aclose", "__aenter__", "__aexit__"}:
                if item.name != ROOT:
                    raise Unsupported(item.name, item.node, f"{name}, but no `__anext__`")
            elif is_public(name):
                if name in BOTH_WORLDS.get(item.name, ()):
                    continue
                body += ["", *self._function(item, member)]
        if item.name == ROOT:
            body += self._closing(item)
        for line in body:
            # The further lines of docstrings keep their own indentation.
            first, *rest = line.split("\n")
            yield "\n".join(["    " + first, *rest]) if line else ""

    def _item_type(self, item: Class) -> str:
        step = self.member(item, "__anext__")
        assert step is not None
        assert step.function.returns is not None
        node = evaluate(step.function.returns)
        self._check_wrappable(node, item, item.name)
        return self._type(node, step.home.module, item.name)

    def _constructor(self, item: Class) -> Iterator[str]:
        if item.name != ROOT:
            return
        init = self.member(item, "__init__")
        assert init is not None
        parameters, passed = self._signature(init, f"{item.name}.__init__")
        self.used |= {"Lease", "wrap"}
        yield ""
        yield f"def __init__({parameters}) -> None:"
        yield from self._doc(init.function, f"{item.name}.__init__")
        yield f"    wrapped = Async{item.name}({passed})"
        yield "    super().__init__(Lease(wrapped.aclose, wrap), wrapped)"

    def _fields(self, item: Class) -> Iterator[str]:
        """The public fields of an attrs class become properties."""
        for each in self.fields(item):
            where = f"{item.name}.{each.name}"
            module = each.home.module
            if each.doc is None:
                raise Unsupported(where, each.node, "a field without a docstring")
            value = self._wrap(each.annotation, f"self._async.{each.name}", item, module, where)
            yield ""
            yield "@property"
            yield f"def {each.name}(self) -> {self._type(each.annotation, module, where)}:"
            yield f'    """{translated(each.doc, where)}"""'
            yield f"    return {value}"

    def _iter(self, item: Class, member: Member) -> Iterator[str]:
        result = self._result_type(item, member, "iterate", f"{item.name}.__aiter__")
        assert member.function.returns is not None
        iteration = self._iteration(evaluate(member.function.returns))
        yield ""
        yield f"def __iter__(self) -> {result}:"
        yield from self._doc(member.function, f"{item.name}.__iter__")
        yield f"    return {iteration}(self._lease, self._async)"

    def _both(self, item: Class, member: Member) -> Iterator[str]:
        function = member.function
        where = f"{item.name}.{function.name}"
        assert function.returns is not None
        result = ast.unparse(evaluate(function.returns))
        if len(function.args.args) != 1 or names(function.returns) & self.active.keys():
            raise Unsupported(where, function, "parameters or active results in both worlds")
        self.annotated["AsyncIterator"] = self.annotated["Coroutine"] = item.module
        self.annotated["Any"] = item.module
        yield ""
        if function.name == "__aiter__":
            yield f"def __aiter__(self) -> {result}:"
            yield from self._doc(function, where)
            yield "    return aiter(self._async)"
        else:
            yield f"def {function.name}(self) -> Coroutine[Any, Any, {result}]:"
            yield from self._doc(function, where)
            yield f"    return self._async.{function.name}()"

    def _closing(self, item: Class) -> Iterator[str]:
        if self.member(item, "aclose") is None:
            raise Unsupported(item.name, item.node, "no aclose")
        self.annotated["Self"] = item.module
        yield ""
        yield "def close(self) -> None:"
        yield '    """Cancel what still runs, and close the connections. May be called twice."""'
        yield "    self._lease.close()"
        yield ""
        yield "def __enter__(self) -> Self:"
        yield "    return self"
        yield ""
        yield "def __exit__(self, *exc_info: object) -> None:"
        yield "    self._lease.close_unless(self.is_view)"

    # The file

    def source(self) -> str:
        """Return the generated module, unformatted."""
        body: list[str] = []
        for item in self.active.values():
            body += ["", "", *self._class(item)]
        if missing := BY_HAND.keys() - self.by_hand:
            raise Unsupported(", ".join(missing), None, "written by hand, and gone")
        self.used.add("TWINS")
        twins = ", ".join(f"Async{name}: {name}" for name in self.active)
        variables = sorted({name for item in self.active.values() for name in item.parameters})
        variables += [name for name in self.annotated if len(name) == 1 and name not in variables]
        if variables:
            self.used.add("TypeVar")
        return "\n".join(
            [
                f'"""{DOCSTRING}"""',
                "",
                "from __future__ import annotations",
                "",
                *self._imports(),
                "",
                *(f'{name} = TypeVar("{name}")' for name in variables),
                *body,
                "",
                "",
                f"TWINS.update({{{twins}}})",
                "",
            ]
        )

    def _imports(self) -> Iterator[str]:
        for name in sorted(self.used):
            yield RUNTIME[name]
        for name, item in self.active.items():
            yield f"from ..{item.module.name} import {name} as Async{name}"
        for name, module in sorted(self.annotated.items()):
            if name not in self.active and name not in self.used and len(name) > 1:
                yield from self._import(name, module)

    @staticmethod
    def _import(name: str, module: Module) -> Iterator[str]:
        if name in RUNTIME:
            yield RUNTIME[name]
        elif name in module.imports:
            statement, original = module.imports[name]
            yield f"{statement} {original}" + ("" if name == original else f" as {name}")
        elif name in module.names:
            yield f"from ..{module.name} import {name}"
