"""Reads annotations and functions, as syntax trees."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def evaluate(node: ast.AST) -> ast.expr:
    """Turn the string literals of an annotation into the types that they name."""

    class Evaluate(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            return node if ast.unparse(node.value) == "Literal" else self.generic_visit(node)

        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            if isinstance(node.value, str):
                return evaluate(ast.parse(node.value, mode="eval").body)
            return node

    evaluated = Evaluate().visit(copy.deepcopy(node))
    assert isinstance(evaluated, ast.expr)
    return evaluated


def names(node: ast.AST | None) -> set[str]:
    """Return all names in an annotation."""
    if node is None:
        return set()
    return {each.id for each in ast.walk(evaluate(node)) if isinstance(each, ast.Name)}


def alternatives(node: ast.expr) -> list[ast.expr]:
    """Return the members of a union."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*alternatives(node.left), *alternatives(node.right)]
    return [node]


def head(node: ast.expr) -> str:
    """Return the outermost name of a type, without its module."""
    outer = node.value if isinstance(node, ast.Subscript) else node
    return ast.unparse(outer).rpartition(".")[2]


def argument(node: ast.expr) -> ast.expr:
    """Return the first argument of a generic type."""
    assert isinstance(node, ast.Subscript)
    return node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice


def substituted(function: Function, arguments: dict[str, ast.expr]) -> Function:
    """Put the arguments of a generic base in the place of its parameters."""
    if not arguments:
        return function

    class Substitute(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return arguments.get(node.id, node)

    made = copy.deepcopy(function)
    for each in [*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs]:
        if each.annotation is not None:
            each.annotation = Substitute().visit(evaluate(each.annotation))
    if made.returns is not None:
        made.returns = Substitute().visit(evaluate(made.returns))
    return made


def decorators(function: Function) -> set[str]:
    """Return the names of a function's decorators."""
    return {ast.unparse(d).partition("(")[0] for d in function.decorator_list}


def yields(function: Function) -> bool:
    """Tell whether a function is a generator."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield child
                yield from walk(child)

    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in walk(function))
