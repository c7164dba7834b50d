"""Read a pickle as inert data: no class is looked up, nothing is called, nothing is imported.

A pickle is a program for a small stack machine. Two of its steps are dangerous: it looks up names in Python's modules, and it calls
what it found. Here both only leave a record behind (``records.py``). Whoever needs a module or a tensor makes it from these
records, with code of our own.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, cast

from edgecv.converters.checkpoints.records import Call, DamagedPickle, Global, Instance, Persistent, Unmade

# Each step may leave an object of some 100 bytes behind. The largest YOLO checkpoint has some 100,000 steps, a state dict of
# a SAM 20,000.
MAX_STEPS = 2_000_000
MAX_BYTES = 64 << 20  # of the pickle itself; the weights lie beside it
_MAX_KEY_ITEMS = 16
_MAX_INT_KEY = 1 << 31  # larger ones could be made to collide in a dictionary
_MAX_INT_BITS = 512  # Python refuses to write very large numbers as text, in a message for example
# Protocols below 3 write the names that Python 2 had.
_OLD_MODULES: Mapping[str, str] = MappingProxyType({"__builtin__": "builtins", "copy_reg": "copyreg"})
_MARK = object()  # where a group of values begins on the stack


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

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

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

    def use_protocol(self, protocol: int) -> None:
        self.protocol = protocol

    def get(self, key: int) -> None:
        self.stack.append(self.memory[key])

    def put(self, key: int) -> None:
        self.memory[key] = self.top()

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Unmade):
            target.items.update(enumerate(values, start=len(target.items)))
        else:
            raise DamagedPickle(f"it appends to a {type(target).__name__}")

    def set_items(self, flat: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Unmade):
            target = target.items
        if not isinstance(target, dict):
            raise DamagedPickle(f"it sets items of a {type(target).__name__}")
        target.update(_dictionary(flat))

    def build(self, state: Any) -> None:
        target = self.top()
        if isinstance(target, Unmade):
            target.state = state
        # An ordered dictionary carries notes for torch's loader, which are not needed.
        elif not isinstance(target, dict):
            raise DamagedPickle(f"it sets the state of a {type(target).__name__}")


_Step = Callable[[_Machine, Any], object]


def _pushes(make: Callable[[Any], Any]) -> _Step:
    """A step that pushes what is made of its argument in the file."""
    return lambda machine, argument: machine.stack.append(make(argument))


def _groups(make: Callable[[list[Any]], Any]) -> _Step:
    """A step that pushes what is made of the group on the stack."""
    return lambda machine, _argument: machine.stack.append(make(machine.group()))


def _takes(count: int, make: Callable[..., Any]) -> _Step:
    """A step that pushes what is made of the machine and of ``count`` values from its stack, the deepest first."""

    def step(machine: _Machine, _argument: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.stack.append(make(machine, *reversed(values)))

    return step


def _tuple(_machine: _Machine, *values: Any) -> tuple[Any, ...]:
    return values


def _integer(value: int) -> int:
    if value.bit_length() > _MAX_INT_BITS:
        raise DamagedPickle(f"it holds a number of more than {_MAX_INT_BITS} bits")
    return value


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


def _global(machine: _Machine, module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise DamagedPickle("a name is no text")
    return Global(_OLD_MODULES.get(module, module) if machine.protocol < 3 else module, name)


def _inst(machine: _Machine, names: str) -> None:
    function = _global(machine, *names.split(" ", 1))
    machine.stack.append(Call(function, tuple(machine.group())))


def _reduced(machine: _Machine, function: Any, arguments: Any) -> Any:
    if not isinstance(arguments, tuple):
        raise DamagedPickle("a call has no arguments")
    plain = _PLAIN_CALLS.get(str(function)) if isinstance(function, Global) else None
    return plain(machine, *arguments) if plain is not None else Call(function, arguments)


def _ordered(machine: _Machine, pairs: Any = ()) -> dict[Any, Any]:
    machine.spend(len(pairs))
    return {_key(key): value for key, value in pairs}


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
_NUMBERS = ("FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_STEPS: Mapping[str, _Step] = MappingProxyType(
    {
        **dict.fromkeys((*_NUMBERS, *_TEXTS, *_BYTES), _pushes(lambda value: value)),
        **dict.fromkeys(_INTEGERS, _pushes(_integer)),
        "NONE": _pushes(lambda _: None),
        "NEWTRUE": _pushes(lambda _: True),
        "NEWFALSE": _pushes(lambda _: False),
        "MARK": _pushes(lambda _: _MARK),
        **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _pushes(lambda _: [])),
        "EMPTY_DICT": _pushes(lambda _: {}),
        "EMPTY_TUPLE": _pushes(lambda _: ()),
        "PERSID": _pushes(Persistent),
        **dict.fromkeys(("LIST", "FROZENSET"), _groups(list)),
        "TUPLE": _groups(tuple),
        "DICT": _groups(_dictionary),
        "OBJ": _groups(lambda values: Call(values[0], tuple(values[1:]))),
        **{f"TUPLE{count}": _takes(count, _tuple) for count in (1, 2, 3)},
        "BINPERSID": _takes(1, lambda _, key: Persistent(key)),
        "STACK_GLOBAL": _takes(2, _global),
        "REDUCE": _takes(2, _reduced),
        "NEWOBJ": _takes(2, lambda _, cls, arguments: Instance(cls, arguments)),
        "NEWOBJ_EX": _takes(3, lambda _, cls, arguments, names: Instance(cls, (arguments, names))),
        "PROTO": _Machine.use_protocol,
        "FRAME": lambda _machine, _size: None,
        "APPEND": lambda machine, _: machine.extend([machine.pop()]),
        **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.extend(machine.group())),
        "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
        "SETITEMS": lambda machine, _: machine.set_items(machine.group()),
        "BUILD": lambda machine, _: machine.build(machine.pop()),
        "POP": lambda machine, _: machine.stack.pop(),
        "POP_MARK": lambda machine, _: machine.group(),
        "DUP": lambda machine, _: machine.stack.append(machine.top()),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
        "MEMOIZE": lambda machine, _: machine.put(len(machine.memory)),
        "GLOBAL": lambda machine, names: machine.stack.append(_global(machine, *names.split(" ", 1))),
        "INST": _inst,
    }
)
