"""Damage to documents, drawn from a generator: of their structure, of their text and of their bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]


class Raw(str):
    """A value as it is to stand in the text."""


class Pairs(list[tuple[str, Any]]):
    """A mapping that may have a key twice."""


def _nested(depth: int) -> Raw:
    return Raw("[" * depth + "]" * depth)


ODD = (
    *map(Raw, ("null", "true", "false", "0", "1", "2", "-1", "-0.0", "0.5", "1e-320", "1e400", "NaN", "-Infinity")),
    *map(Raw, (str(2**31), str(2**63 - 1), str(2**63), str(2**64), "9" * 400, "9" * 5000, "1.", "01", "0x10")),
    *map(Raw, ('""', '"0"', '"a\\nb"', '"\\u0000"', '"\\ud800"', '"\\u001b[31m"', '"../x"', '"' + "x" * 10_000 + '"')),
    *map(Raw, ("[]", "{}", "[1]", "[null]", '{"a": 1}', '{"a": {"a": 1}, "a": 2}', "[[1, 2], [3]]")),
    *map(_nested, (2, 40, 60, 300, 3000)),
    Raw('{"a":' * 300 + "1" + "}" * 300),
)  # fmt: skip
KEYS = ("", "a", "a\nb", "\x1b[31m", "0", "name", "__metadata__", "extra", "é", "x" * 5000, "\ud800")


def parse(text: str) -> Any:
    """JSON as a tree of `Pairs`, lists and scalars."""
    return json.loads(text, object_pairs_hook=Pairs)


def dump(value: Any) -> str:
    """The text of a tree."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {dump(child)}" for key, child in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    return json.dumps(value)


def _places(value: Any) -> Iterator[tuple[list[Any], int]]:
    """Every container with the place of each of its children."""
    if isinstance(value, list):
        for place, child in enumerate(value):
            yield value, place
            yield from _places(child[1] if isinstance(value, Pairs) else child)


def mutated_tree(rng: random.Random, tree: Any) -> Any:
    """A tree of which some values are of another type, swapped, gone, twice, nested, or under another key."""
    for _ in range(1 + int(rng.expovariate(1.0))):
        places = list(_places(tree))
        if not places:
            return rng.choice(ODD)
        box, place = rng.choice(places)
        key, old = box[place] if isinstance(box, Pairs) else (None, box[place])

        def put(value: Any, key: str | None = key, box: list[Any] = box, place: int = place) -> None:
            box[place] = value if key is None else (key, value)

        match rng.randrange(8):
            case 0 | 1:
                put(rng.choice(ODD))
            case 2:  # another value of the document
                other, there = rng.choice(places)
                put(copy.deepcopy(other[there][1] if isinstance(other, Pairs) else other[there]))
            case 3:
                del box[place]
            case 4:
                box.insert(rng.randint(0, len(box)), copy.deepcopy(box[place]))
            case 5 if key is not None:
                box[place] = (
                    rng.choice((*KEYS, *(k for b, i in places if isinstance(b, Pairs) for k in [b[i][0]]))),
                    old,
                )
            case 6 if isinstance(old, str) and not isinstance(old, Raw):
                put(mutated_text(rng, old))
            case 6 if isinstance(old, int | float) and not isinstance(old, bool):
                put(rng.choice((old + 1, old - 1, -old, old * 2, float(old), str(old), old * 1e9)))
            case _:
                box.insert(place, (rng.choice(KEYS), rng.choice(ODD)) if isinstance(box, Pairs) else rng.choice(ODD))
    return tree


def mutated_text(rng: random.Random, text: str) -> str:
    """A text with a piece cut out, doubled or put in."""
    begin = rng.randint(0, len(text))
    end = min(len(text), begin + rng.randint(0, 8))
    piece = rng.choice(("", text[begin:end] * 2, "\n", "\0", "é", " ", "0", "-", "x", "٣", "../", "\ud800"))
    return text[:begin] + piece + text[end:]


EXTREME = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x01")


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes that are cut off, flipped, gone, doubled, or set to extremes as lengths may be."""
    data = bytearray(content)
    for _ in range(1 + int(rng.expovariate(1.0))):
        # Headers are short, and stand at the beginning.
        at = rng.randint(0, min(len(data), rng.choice((16, 128, 1 << 30))))
        end = min(len(data), at + rng.choice((1, 2, 4, 8, 64)))
        match rng.randrange(7):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end]
            case 4:
                data[at:end] = rng.choice(EXTREME) * (end - at)
            case 5:
                data[at:at] = rng.randbytes(end - at)
            case _:
                data[at:end] = rng.randint(0, 300).to_bytes(8, rng.choice(("little", "big")))[: end - at]
    return bytes(data)


def mutated_encoding(rng: random.Random, text: str) -> bytes:
    """A text as bytes, now and then in another encoding than UTF-8, or damaged after that."""
    if rng.random() < 0.05:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32", "utf-7")), "replace")
    content = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, content) if rng.random() < 0.15 else content


def mutated_json(rng: random.Random, content: bytes) -> bytes:
    """A JSON document, damaged in structure or text."""
    if rng.random() < 0.1:
        return mutated_bytes(rng, content)
    return mutated_encoding(rng, dump(mutated_tree(rng, parse(content.decode()))))


_YAML = (
    "&a", "*a", "!!python/object/apply:os.system [true]",
    "!x", "|", ">", "? ", ": ", "- ", "---", "...", "%YAML 9.9", "\t",
    "\x85", "\u2028", "\ufeff", "#", "'", '"', "[", "]", "{", "}", ",", "<<", "~", "1e400", ".inf", ".nan", "0o7",
    "1:30", "yes",
    '"a\\nb":', '"\\e[31m":', '"\\ud800":',
    '"\\ud800"', "9" * 70, '"a\\nb"', '"\\e[31m"', "\0", "@", "`",
    "1ep2it", "120%", "0it", "- - - - -", "[" * 60, "{a: " * 60, "x" * 3000,
)  # fmt: skip


def mutated_yaml(rng: random.Random, content: bytes) -> bytes:
    """A YAML document of which lines are gone, doubled, moved or indented, or words are others."""
    lines = content.decode().split("\n")
    for _ in range(1 + int(rng.expovariate(1.0))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        words = lines[at].split(" ")
        match rng.randrange(8):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(other, lines[at])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = lines[at][1:] if rng.random() < 0.5 else " " * rng.randint(1, 4) + lines[at]
            case 4:
                words[rng.randrange(len(words))] = rng.choice(_YAML)
                lines[at] = " ".join(words)
            case 5:
                words[rng.randrange(len(words))] = rng.choice(lines[other].split(" "))
                lines[at] = " ".join(words)
            case 6:
                head, colon, _ = lines[at].partition(": ")
                lines[at] = head + colon + str(rng.choice(ODD))
            case _:
                lines[at] = mutated_text(rng, lines[at])
    return mutated_encoding(rng, "\n".join(lines))


def mutated_tensors(rng: random.Random, content: bytes) -> bytes:
    """A file of safetensors whose header says something else, with its length right or wrong, or damaged bytes."""
    if rng.random() < 0.2:
        return mutated_bytes(rng, content)
    size = int.from_bytes(content[:8], "little")
    header, data = parse(content[8 : 8 + size].decode()), content[8 + size :]
    if rng.random() < 0.5:  # the document within the header
        ((_, entries),) = [pair for pair in header if pair[0] == "__metadata__"]
        entries[0] = (entries[0][0], dump(mutated_tree(rng, parse(entries[0][1]))))
    else:
        header = mutated_tree(rng, header)
    text = dump(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    wrong = rng.random() < 0.1
    length = (
        rng.choice((0, 1, 7, len(text) - 1, len(text) + 1, 1 << 31, (1 << 63) - 1, (1 << 64) - 1))
        if wrong
        else len(text)
    )
    if rng.random() < 0.1:
        data = mutated_bytes(rng, data)
    return max(length, 0).to_bytes(8, "little") + text + data


# What a hostile pickle is made of: names, calls, and tuples within tuples, each of which doubles what is printed of it.
_OPCODES = (
    b"}", b"]", b"(", b"0", b"1", b"2", b"K\x07", b"M\x00\x0c", b"J\xff\xff\xff\xff",
    b"N", b"\x88", b"\x89", b"U\x01a", b"e", b"u", b"t",
    b"\x85", b"\x86", b"\x87", b"R", b"b", b"q\x00", b"h\x00", b".", b"cos\nsystem\n",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"\x8a\x04\xff\xff\xff\x7f", b"I99\n", b"F1e9\n", b"\x8b\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f",
    b"\x85" * 2000, b"q\x00h\x00\x86" * 40, b"]" * 500, b"X\x00\x00\x00\x00", b"\x95" + b"\xff" * 8,
)  # fmt: skip


def mutated_pickle(rng: random.Random, content: bytes) -> bytes:
    """A pickle with other opcodes among its own."""
    if rng.random() < 0.4:
        return mutated_bytes(rng, content)
    data = bytearray(content[:2] if rng.random() < 0.4 else content)
    for _ in range(1 + int(rng.expovariate(0.3))):
        at = len(data) if rng.random() < 0.5 else rng.randint(0, min(len(data), 200))
        end = at + rng.choice((0, 0, 1, 2, 5))
        data[at:end] = rng.choice(_OPCODES)
    return bytes(data)


_NAMES = (
    b"train/n01/N01_0.JPEG", b"train/n01/._n01_0.JPEG", b"train/n01/a\nb.JPEG", b"train/n01/\x1b[31m.JPEG",
    b"train/N01/a.JPEG",
    b"train/n01/\xff.JPEG", b"train/\xff/a.JPEG", b"train/a\nb/a.JPEG", b"val/n04/a.JPEG", b"val/images/val_0.JPEG",
    b"val/images/new.png", b"train/n01/a.JPEG/b", b"train/.DS_Store", b"val/val_annotations.txt",
    b"train/n01/images/n01_0.JPEG",
)  # fmt: skip


def mutated_names(rng: random.Random, content: bytes) -> bytes:
    """Names of files, with zeros between them, of which some are gone, others', odd or damaged."""
    names = content.split(b"\0")
    for _ in range(1 + int(rng.expovariate(1.0))):
        at = rng.randrange(len(names))
        match rng.randrange(5):
            case 0 if len(names) > 1:
                del names[at]
            case 1:
                names[at] = rng.choice(_NAMES)
            case 2:
                names.insert(at, rng.choice(_NAMES))
            case 3:
                names[at] = names[at].swapcase()
            case _:
                names[at] = mutated_bytes(rng, names[at])
    return b"\0".join(names)


def mutated_array(rng: random.Random, content: bytes) -> bytes:
    """A .npy file whose header says something else."""
    if rng.random() < 0.4:
        return mutated_bytes(rng, content)
    length = int.from_bytes(content[8:10], "little")
    text, data = content[10 : 10 + length].decode().strip(), content[10 + length :]
    for _ in range(1 + int(rng.expovariate(1.0))):
        begin = rng.randint(0, len(text))
        end = min(len(text), begin + rng.choice((0, 1, 2, 5)))
        text = (
            text[:begin]
            + rng.choice(
                ("", "(", ")" * 300, "(" * 300, "L", "'", "-", "1e9", "9" * 30, "\n", "|O", ",", "{", "None", "lambda:")
            )
            + text[end:]
        )
    header = text.encode() + b"\n"
    return (
        content[:6]
        + bytes([rng.choice((1, 1, 1, 2, 3)), 0])
        + (len(header) & 0xFFFF).to_bytes(2, "little")
        + header
        + data
    )
