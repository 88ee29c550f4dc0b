"""How commands share options: one parameter, a dataclass, has an option per field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from inspect import Parameter
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from lthbench.options import Option, declared


class Only:
    """The fields of a parameter's dataclass that are options of this command: `Annotated[RunOptions, Only("data")]`."""

    def __init__(self, *names: str) -> None:
        self.names = names


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass parameters (`lthbench.options`) become one option per field."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for parameter in signature.parameters.values():
        kind: Any = parameter.annotation
        more: tuple[Any, ...] = ()
        if get_origin(kind) is Annotated:
            kind, *_ = more = get_args(kind)
        if not is_dataclass(kind):
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        chosen = [name for only in more if isinstance(only, Only) for name in only.names]
        own = [_parameter(kind, name, how) for name, how in declared(kind) if not chosen or name in chosen]
        # What two dataclasses inherit from one is one option, given to both.
        there = {each.name for each in parameters}
        parameters += [each for each in own if each.name not in there]
        groups[parameter.name] = kind, [each.name for each in own]

    @functools.wraps(command)
    def given_by_field(**given: Any) -> None:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        fields = {name for _, names in groups.values() for name in names}
        rest = {name: value for name, value in given.items() if name not in fields}
        whole = {name: kind(**{n: values[n] for n in names if n in values}) for name, (kind, names) in groups.items()}
        command(**rest, **whole)

    given_by_field.__doc__ = _unwrapped(command.__doc__ or "")
    del given_by_field.__wrapped__
    given_by_field.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    given_by_field.__annotations__ = {each.name: each.annotation for each in parameters}
    return given_by_field


def _unwrapped(text: str) -> str:
    """A docstring with one line per paragraph, broken by help where the terminal ends; lines after a \\b stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p[2:] if p.startswith("\b\n") else p.replace("\n", " ") for p in paragraphs)


def _parameter(kind: Any, name: str, how: Option) -> Parameter:
    hint: Any = get_type_hints(kind)[name]
    default: Any = getattr(kind, name, Parameter.empty)
    if get_origin(hint) is tuple:
        hint, default = list[get_args(hint)[0]], list(default)  # type: ignore[misc]
    if how.flag is None:
        typed = typer.Argument(help=how.help, metavar=how.metavar)
    else:
        typed = typer.Option(how.flag, help=how.help, envvar=how.envvar, min=how.min, max=how.max, metavar=how.metavar)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, typed])
