"""The source of some methods of an object, with all that they use, as a class that stands alone in a file.

What trains a network is thus what an export runs: there is no second version of it.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

from geometry.errors import InputError

#: What an object has that is loaded from elsewhere, and given to the class beside its settings.
MODEL = "model"


class SourceBundle:
    """Collects sources: helpers and constants once, and a class per object.

    Args:
        known: Names that the file has already.
    """

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._known = set(known)
        self._imports: dict[str, str] = {}
        self._constants: dict[str, str] = {}
        self._helpers: dict[str, str] = {}
        self._classes: list[str] = []

    def add(self, name: str, part: object, methods: Sequence[str]) -> dict[str, Any]:
        """Add the methods of an object as a class that is made from settings and, where it uses one, a model.

        Objects of this project that it holds become classes of their own.

        Args:
            name: of the class.
            part: the object.
            methods: names of methods.

        Returns:
            The settings: the values of the object that the methods use, which JSON can hold.

        Raises:
            InputError: the methods use something that cannot be written down.
        """
        settings: dict[str, Any] = {}
        sources: dict[str, str] = {}
        held: dict[str, list[str]] = {}
        todo = [[method] for method in methods]
        while todo:
            first, *further = todo.pop(0)
            value = vars(part).get(first)
            if first == MODEL:
                continue
            if value is not None and _is_own(type(value).__module__, type(part).__module__):
                held.setdefault(first, []).extend(further[:1])
                continue
            for attribute in (first, *further):
                if attribute in sources or attribute in settings:
                    continue
                if attribute in vars(part):
                    settings[attribute] = _plain(vars(part)[attribute], type(part), attribute)
                    continue
                member = inspect.getattr_static(type(part), attribute, None)
                function = member.fget if isinstance(member, property) else member
                if isinstance(function, FunctionType):
                    sources[attribute] = _source(function)
                    self._add_globals(function)
                    todo += _uses_of_self(sources[attribute])
                elif attribute == first:
                    settings[attribute] = _plain(member, type(part), attribute)
        classes = {attribute: f"{name}{attribute.title().replace('_', '')}" for attribute in held}
        for attribute, used in held.items():
            settings[attribute] = self.add(classes[attribute], vars(part)[attribute], used)
        self._classes.append(_class_text(name, type(part), classes, sources.values()))
        return settings

    def text(self) -> str:
        """Return the sources."""
        constants = [f"{name} = {value}" for name, value in self._constants.items()]
        heads = ["\n".join(sorted(self._imports.values())), "\n".join(constants)]
        return "\n\n\n".join([part for part in (*heads, *self._helpers.values(), *self._classes) if part]) + "\n"

    def _add_globals(self, function: FunctionType) -> None:
        """Add what a function takes from its module."""
        for name in _names(function.__code__):
            found = name in function.__globals__
            if found and name not in (*self._known, *self._helpers, *self._constants):
                self._add_global(name, function.__globals__[name], function)

    def _add_global(self, name: str, value: object, user: FunctionType) -> None:
        if isinstance(value, ModuleType):
            self._imports[name] = f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}"
        elif isinstance(value, FunctionType) and _is_own(value.__module__, user.__module__):
            self._helpers[name] = ""  # it may call itself
            self._add_globals(value)
            del self._helpers[name]
            self._helpers[name] = _source(value)
        elif isinstance(value, type) and issubclass(value, InputError):
            self._constants[name] = "ValueError"
        elif isinstance(value, type | FunctionType):
            self._imports[name] = f"from {value.__module__} import {value.__name__} as {name}"
        else:
            self._constants[name] = repr(_plain(value, user, name))


def _class_text(name: str, kind: type, held: Mapping[str, str], methods: Any) -> str:  # noqa: ANN401
    """Return the source of a class.

    Args:
        name: its name.
        kind: the class that it is taken from.
        held: classes of the objects that it holds, by attribute.
        methods: sources of its methods.
    """
    head = [
        f"class {name}:",
        f'    """{kind.__name__}, as it was trained."""',
        "",
        "    def __init__(self, settings: Mapping[str, Any], model: Any = None) -> None:",
        f"        self.{MODEL} = model",
        "        vars(self).update(settings)",
        *(f'        self.{attribute} = {held[attribute]}(settings["{attribute}"])' for attribute in held),
    ]
    return "\n\n".join(["\n".join(head), *(textwrap.indent(text, "    ") for text in methods)])


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code uses beside its own, with those of functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _uses_of_self(source: str) -> list[list[str]]:
    """Return the chains of attributes that begin at a method's own object: self.a.b() and self.a().b are [a, b]."""
    chains = []
    for node in ast.walk(ast.parse(source)):
        chain, place = [], node
        while isinstance(place, ast.Attribute | ast.Call):
            if isinstance(place, ast.Attribute):
                chain.append(place.attr)
            place = place.func if isinstance(place, ast.Call) else place.value
        if chain and isinstance(place, ast.Name) and place.id == "self":
            chains.append(chain[::-1])
    return chains


def _is_own(module: str, other: str) -> bool:
    """Say whether a module is one of this project's, or of the package of another module."""
    own = {"geometry", __name__.split(".")[0], other.split(".")[0]}
    return module.split(".")[0] in own


def _plain(value: object, owner: Any, name: str) -> Any:  # noqa: ANN401
    """Return a value that can be written down."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each, owner, name) for each in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(each, owner, name) for key, each in value.items()}
    raise InputError(
        f"{owner.__qualname__} cannot be written into a folder for diffusers: {name} is a {type(value).__name__}, not "
        "a plain value. Export it with --format torch or onnx."
    )


def _source(function: FunctionType) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(function)).rstrip()
    except OSError as error:
        raise InputError(
            f"the source of {function.__qualname__} cannot be read; export with --format torch or onnx."
        ) from error
    if "__class__" in function.__code__.co_freevars:
        raise InputError(
            f"{function.__qualname__} calls super(), which cannot be written into a folder for diffusers. Export with "
            "--format torch or onnx."
        )
    return text
