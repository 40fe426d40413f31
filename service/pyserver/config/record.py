"""Values by name that do not change: dataclasses in small, for what is made once, at every start.

Owns:    how the annotations of a class become its fields, with their defaults.
Never:   loads `dataclasses`, which brings `inspect`, and with it half a compiler, and makes code for each class: 13 ms
         of a start, that clients wait for.
Fails:   TypeError for what is no field, and for a field without a value; AttributeError for a change.
Used by: config.options (the tables and the Config), config.address, config.sources.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, NoReturn, Self, dataclass_transform

# Stands for the default of a field that has to be given.
MISSING: Final[Any] = object()


class Field(NamedTuple):
    """What may stand in a class in place of a default: the default, and what else is to be known of the field."""

    default: Any
    about: Mapping[str, Any] = {}


@dataclass_transform(frozen_default=True)
class Record:
    """The base of a class whose annotations are its fields: given by name, or in their order."""

    FIELDS: ClassVar[Mapping[str, Field]]

    def __init_subclass__(cls) -> None:
        fields = {}
        for name in cls.__annotations__:
            given = getattr(cls, name, MISSING)
            fields[name] = given if isinstance(given, Field) else Field(given)
            if given is not MISSING:
                delattr(cls, name)
        cls.FIELDS = fields

    def __init__(self, *values: Any, **named: Any) -> None:  # noqa: ANN401  what each of them is the subclass says
        given = dict(zip(self.FIELDS, values, strict=False))
        if len(given) < len(values) or given.keys() & named.keys():
            raise TypeError(f"too many values for {type(self).__name__}")
        given |= named
        for name, field in self.FIELDS.items():
            value = given.pop(name, field.default)
            if value is MISSING:
                raise TypeError(f"{type(self).__name__} without {name}")
            object.__setattr__(self, name, value)
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def replaced(self, **changes: Any) -> Self:  # noqa: ANN401
        """Return a record that differs in these fields."""
        return type(self)(**{**vars(self), **changes})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} of a {type(self).__name__} does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} of a {type(self).__name__} does not go")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
