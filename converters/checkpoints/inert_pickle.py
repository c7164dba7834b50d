"""Read a pickle as inert data: no class is looked up, nothing is called, nothing is imported.

A pickle is a program for a small stack machine. Two of its steps are dangerous: it looks up names in Python's modules, and it calls
what it found. Here both only leave a record behind: ``Global`` for a name, ``Call`` for a call, ``Instance`` for an object of a
class. Whoever needs a module or a tensor makes it from these records, with code of our own.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, cast

# Each step may leave an object of some 100 bytes behind. The largest YOLO checkpoint has some 100,000 steps, a state dict of
# a SAM 20,000.
MAX_STEPS = 2_000_000
MAX_BYTES = 64 << 20  # of the pickle itself; the weights lie beside it
_MAX_KEY_ITEMS = 16
_MAX_INT_KEY = 1 << 31  # larger ones could be made to collide in a dictionary
_MAX_INT_BITS = 512  # Python refuses to write very large numbers as text, in a message for example
# Protocols below 3 write the names that Python 2 had.
_OLD_MODULES: Mapping[str, str] = MappingProxyType({"__builtin__": "builtins", "copy_reg": "copyreg"})


class DamagedPickle(ValueError):
    """The bytes are no pickle that this reader understands."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name in a module, which was not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to something outside the pickle: in a checkpoint, to the bytes of a tensor."""

    key: Any


@dataclass(slots=True, eq=False)
class Call:
    """A call that was not made. What the pickle would have added to its result stands beside it."""

    function: Any
    arguments: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Instance:
    """An object of a class, which was not made."""

    cls: Any
    arguments: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()


class Limited:
    """A stream of which no more than a pickle's size is read: the old container has no length at its head."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MAX_BYTES

    def read(self, size: int) -> bytes:
        return self._counted(self._stream.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(self._left + 1))

    def _counted(self, found: bytes) -> bytes:
        self._left -= len(found)
        if self._left < 0:
            raise DamagedPickle(f"its description is larger than {MAX_BYTES >> 20} MiB")
        return found


def read_pickle(stream: BinaryIO | Limited) -> Any:
    """The one value that a pickle describes, from where the stream stands; the stream is left behind its end.

    A stream that is not bounded otherwise comes as ``Limited``.

    Returns:
        Plain values (numbers, texts, bytes, lists, tuples, dictionaries) and records in their place for all else. Ordered
        dictionaries come as dictionaries, sets as lists or tuples: both are what a checkpoint means by them.

    Raises:
        DamagedPickle: it is no pickle, is cut short, takes too many steps, or uses steps that no checkpoint has.
    """
    machine = _Machine()
    try:
        for opcode, argument, _position in pickletools.genops(cast("BinaryIO", stream)):
            machine.spend(1)
            if opcode.name == "STOP":
                return machine.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise DamagedPickle(f"it uses {opcode.name}, which no checkpoint does")
            step(machine, argument)
    except DamagedPickle:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError) as error:
        raise DamagedPickle(f"its pickle is damaged ({error})") from error
    raise DamagedPickle("its pickle has no end")


class _Machine:
    """The stack and the memory of a pickle's program."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.protocol = 0
        self.steps = 0

    def spend(self, steps: int) -> None:
        """Count what was done; something that is copied counts as many steps as it has parts."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise DamagedPickle(f"it takes more than {MAX_STEPS:,} steps")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise DamagedPickle("it takes a value where there is none")
        return value

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise DamagedPickle("it takes a value where there is none")
        return value

    def group(self) -> list[Any]:
        """Everything above the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise DamagedPickle("it takes a group where there is none")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values


def _push(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _push_integer(machine: _Machine, argument: int) -> None:
    if argument.bit_length() > _MAX_INT_BITS:
        raise DamagedPickle(f"it holds a number of more than {_MAX_INT_BITS} bits")
    machine.push(argument)


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _argument: machine.push(value)


def _made(kind: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _argument: machine.push(kind())


def _nothing(_machine: _Machine, _argument: Any) -> None:
    return


def _protocol(machine: _Machine, argument: int) -> None:
    machine.protocol = argument


def _grouped(kind: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _argument: machine.push(kind(machine.group()))


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _argument: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return step


def _get(machine: _Machine, argument: int) -> None:
    machine.push(machine.memory[argument])


def _put(machine: _Machine, argument: int) -> None:
    machine.memory[argument] = machine.top()


def _memoize(machine: _Machine, _argument: Any) -> None:
    machine.memory[len(machine.memory)] = machine.top()


def _duplicate(machine: _Machine, _argument: Any) -> None:
    machine.push(machine.top())


def _drop(machine: _Machine, _argument: Any) -> None:
    machine.stack.pop()


def _drop_group(machine: _Machine, _argument: Any) -> None:
    machine.group()


def _append(machine: _Machine, _argument: Any) -> None:
    _extend(machine, [machine.pop()])


def _appends(machine: _Machine, _argument: Any) -> None:
    _extend(machine, machine.group())


def _extend(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, (Call, Instance)):
        target.items.update(enumerate(values, start=len(target.items)))
    else:
        raise DamagedPickle(f"it appends to a {type(target).__name__}")


def _set_item(machine: _Machine, _argument: Any) -> None:
    value = machine.pop()
    _set(machine, [machine.pop(), value])


def _set_items(machine: _Machine, _argument: Any) -> None:
    _set(machine, machine.group())


def _set(machine: _Machine, flat: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, (Call, Instance)):
        target = target.items
    if not isinstance(target, dict):
        raise DamagedPickle(f"it sets items of a {type(target).__name__}")
    target.update(_dictionary(flat))


def _dictionary(flat: list[Any]) -> dict[Any, Any]:
    if len(flat) % 2:
        raise DamagedPickle("a key has no value")
    return {_key(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _key(value: Any) -> Any:
    """``value``, if it is quick to hash: nested tuples could keep a processor busy for ever."""
    if isinstance(value, tuple):
        if len(value) > _MAX_KEY_ITEMS or any(isinstance(item, tuple) for item in value):
            raise DamagedPickle("a key is a nested tuple")
        if any(isinstance(item, float) for item in value):  # many such tuples could be made to have one hash
            raise DamagedPickle("a key is a tuple of fractions")
        return tuple(_key(item) for item in value)
    if isinstance(value, int) and abs(value) > _MAX_INT_KEY:
        raise DamagedPickle("a key is too large a number")
    if isinstance(value, (list, dict, bytearray)):
        raise DamagedPickle(f"a key is a {type(value).__name__}")
    return value


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(_named(machine, module, name))


def _stack_global(machine: _Machine, _argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise DamagedPickle("a name is no text")
    machine.push(_named(machine, module, name))


def _named(machine: _Machine, module: str, name: str) -> Global:
    return Global(_OLD_MODULES.get(module, module) if machine.protocol < 3 else module, name)


def _reduce(machine: _Machine, _argument: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(arguments, tuple):
        raise DamagedPickle("a call has no arguments")
    plain = _PLAIN_CALLS.get(str(function)) if isinstance(function, Global) else None
    machine.push(plain(machine, *arguments) if plain is not None else Call(function, arguments))


def _ordered(machine: _Machine, pairs: Any = ()) -> dict[Any, Any]:
    machine.spend(len(pairs))
    made = {}
    for pair in pairs:
        key, value = pair
        made[_key(key)] = value
    return made


def _members(_machine: _Machine, values: Any = ()) -> Any:
    if not isinstance(values, (list, tuple)):
        raise DamagedPickle("a set has no members")
    return values


def _size(_machine: _Machine, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, tuple):
        raise DamagedPickle("a size is no list of numbers")
    return values


def _encoded(machine: _Machine, text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "utf-8", "ascii"):
        raise DamagedPickle("bytes are not written as text")
    machine.spend(len(text) // 16)
    return text.encode(str(encoding))


def _new(machine: _Machine, _argument: Any) -> None:
    arguments, cls = machine.pop(), machine.pop()
    machine.push(Instance(cls, arguments))


def _new_with_names(machine: _Machine, _argument: Any) -> None:
    names, arguments, cls = machine.pop(), machine.pop(), machine.pop()
    machine.push(Instance(cls, (arguments, names)))


def _inst(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(Call(_named(machine, module, name), tuple(machine.group())))


def _obj(machine: _Machine, _argument: Any) -> None:
    cls, *arguments = machine.group()
    machine.push(Call(cls, tuple(arguments)))


def _build(machine: _Machine, _argument: Any) -> None:
    state = machine.pop()
    target = machine.top()
    if isinstance(target, (Call, Instance)):
        target.state = state
    elif not isinstance(target, dict):  # an ordered dictionary carries notes for torch's loader, which are not needed
        raise DamagedPickle(f"it sets the state of a {type(target).__name__}")


def _persistent(machine: _Machine, _argument: Any) -> None:
    machine.push(Persistent(machine.pop()))


def _persistent_text(machine: _Machine, argument: str) -> None:
    machine.push(Persistent(argument))


# Calls that only give data a form.
_PLAIN_CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "collections.OrderedDict": _ordered,
        "builtins.set": _members,
        "builtins.frozenset": _members,
        "torch.Size": _size,
        "_codecs.encode": _encoded,
    }
)
_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_VALUES = (
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
)
_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = MappingProxyType(
    {
        **dict.fromkeys(_VALUES, _push),
        **dict.fromkeys(_INTEGERS, _push_integer),
        "PROTO": _protocol,
        "FRAME": _nothing,
        "NONE": _constant(None),
        "NEWTRUE": _constant(True),
        "NEWFALSE": _constant(False),
        "MARK": _constant(_MARK),
        "EMPTY_LIST": _made(list),
        "EMPTY_SET": _made(list),
        "EMPTY_DICT": _made(dict),
        "EMPTY_TUPLE": _made(tuple),
        "LIST": _grouped(list),
        "FROZENSET": _grouped(list),
        "TUPLE": _grouped(tuple),
        "DICT": _grouped(_dictionary),
        "TUPLE1": _tuple_of(1),
        "TUPLE2": _tuple_of(2),
        "TUPLE3": _tuple_of(3),
        "APPEND": _append,
        "APPENDS": _appends,
        "ADDITEMS": _appends,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        "POP": _drop,
        "POP_MARK": _drop_group,
        "DUP": _duplicate,
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
        "MEMOIZE": _memoize,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduce,
        "INST": _inst,
        "OBJ": _obj,
        "NEWOBJ": _new,
        "NEWOBJ_EX": _new_with_names,
        "BUILD": _build,
        "BINPERSID": _persistent,
        "PERSID": _persistent_text,
    }
)
