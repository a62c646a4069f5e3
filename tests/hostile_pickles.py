"""Generated pickles that may harm their reader: real ones with damage, random opcodes, nested structures."""

import pickle
import struct

import numpy as np

EXTREME = [0, 1, 127, 255, 1 << 15, (1 << 16) - 1, 1 << 28, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 63) - 1]
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
GLOBALS = [b"numpy\ndtype", b"numpy\nndarray", b"builtins\nset", b"__builtin__\nbytes", b"collections\nOrderedDict"]
GLOBALS += [b"_codecs\nencode", b"numpy.core.multiarray\n_reconstruct", b"numpy.core.multiarray\nscalar"]
GLOBALS += [b"numpy.core.numeric\n_frombuffer", b"os\nsystem", b"builtins\neval", b"copyreg\n__newobj__"]
ALONE = [bytes([code]) for code in b").(01NR2bdaelstu]}o\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98Q"]
LINES = [b"V\\u0041\n", b"S'a'\n", b"F1.5\n", b"P1\n", b"ios\nsystem\n", ARRAY, b"cnumpy\ndtype\nU\x02u1\x85R"]


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def wide(number):
    return struct.pack("<I", number & 0xFFFFFFFF)


def changed(rng, content):
    """A file with random damage: cut, bytes and whole numbers overwritten, a part put in once or many times."""
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at, way = int(rng.integers(0, len(content) + 1)), rng.integers(0, 6)
        if way == 0:
            del content[at:]
        elif way == 1:
            content[at : at + 1] = rng.bytes(1)
        elif way == 2:
            content[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif way == 3:
            form = pick(rng, ["<H", "<I", "<Q", ">H", ">I", ">Q"])
            size = struct.calcsize(form)
            content[at : at + size] = struct.pack(form, pick(rng, EXTREME) % (1 << 8 * size))
        else:
            start = int(rng.integers(0, len(content) + 1))
            part = content[start : start + int(rng.integers(1, 200))]
            content[at:at] = part * (int(rng.integers(1, 400)) if way == 5 else 1)
    return bytes(content)


def real_pickle(rng):
    array = np.arange(12).astype(pick(rng, ["u1", "<i8", ">f4", "c8", "?", "U3", "S2", "O"])).reshape(3, 4)
    number = pick(rng, [1, 2.5, None, True, np.uint8(7), np.float64(0.1), 1 << 70, -3])
    tree = {"data": array.T if rng.random() < 0.5 else array, "labels": list(range(int(rng.integers(0, 50))))}
    tree |= {b"names": [f"n{i}" for i in range(5)], "set": {"a", "b"}, 3: (number, bytearray(b"x"))}
    return pickle.dumps(tree, int(rng.integers(0, 6)))


def random_opcodes(rng):
    out = [b"\x80" + bytes([rng.integers(2, 6)])]
    for _ in range(int(rng.integers(1, 400))):
        length = pick(rng, [0, 1, 3, 9, *EXTREME])
        data, few = b"a" * min(length, 9), bytes([rng.integers(0, 6)])
        way = rng.integers(0, 8)
        if way < 4:
            out.append(pick(rng, ALONE))
        elif way == 4:
            out.append(pick(rng, [b"h", b"q", b"K", b"\x82"]) + few)
        elif way == 5:
            out.append(pick(rng, [b"j", b"r", b"J", b"B", b"X", b"T", b"\x8b"]) + wide(length) + data)
        elif way == 6:
            out.append(pick(rng, [b"\x8d", b"\x8e", b"\x96", b"\x95"]) + struct.pack("<Q", length) + data)
        else:
            number = pick(rng, [b"I%d\n", b"L%dL\n", b"p%d\n", b"g%d\n"]) % length
            out.append(pick(rng, [*LINES, b"c" + pick(rng, GLOBALS) + b"\n", number]))
    return b"".join([*out, b"."])


def nested_pickle(rng):
    """Depth, doubling, lists and contents that are used again and again, axes and lengths beyond the content."""
    many, times, big = (int(10 ** rng.uniform(0, most)) for most in (5.7, 4.5, 5.5))
    dtype = b"cnumpy\ndtype\nU\x02" + pick(rng, [b"u1", b"f4", b"U9", b"S0", b"O8"]) + b"\x85R"
    axes = b"".join(b"\x8a\x08" + struct.pack("<Q", pick(rng, EXTREME)) for _ in range(rng.integers(0, 4)))
    one, text = pick(rng, [b"]", b"(", b")\x85", b"}", b"\x8f", b"(l"]), b"X" + wide(big) + b"a" * big + b"q\x000"
    collide = [b"\x8a\x10" + (i * ((1 << 61) - 1)).to_bytes(16, "little") + b"N" for i in range(many % 9999)]
    content = [
        one * many,
        b"})" + b"\x85" * many + b"K\x01s",
        b"})" + b"2\x86" * min(many, 90) + b"K\x01s",
        b"\x8f()" + b"2\x86" * min(many, 90) + b"\x90",
        b"]q\x00" + b"h\x00a" * many,
        b"(" + b"N" * many + pick(rng, [b"t", b"l", b"d"]),
        b"N" + b"".join(b"r" + wide(pick(rng, EXTREME)) for _ in range(9)),
        text + b"(" + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * times + b"l",
        b"](" + b"K\x01" * big + b"eq\x000(" + b"c__builtin__\nset\nh\x00\x85R" * times + b"l",
        text + b"}(" + b"h\x00N" * times + b"u",
        b"B" + text[1:] + b"(" + (ARRAY + b"(K\x01K\x01\x85" + dtype + b"\x89h\x00tb") * times + b"l",
        b"B" + text[1:] + b"(" + (ARRAY + b"(K\x01J" + wide(big) + b"\x85" + dtype + b"\x89h\x00tb") * times + b"l",
        ARRAY + b"(K\x01(" + axes + b"t" + dtype + b"\x89C\x04abcdtb",
        b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd" + dtype + b"(" + axes + b"tU\x01CtR",
        b"}(" + b"".join(collide) + b"u",
        pick(rng, [b"I", b"F", b"L"]) + b"1" * many + b"\n",
    ]
    return b"\x80\x02" + pick(rng, content) + b"."


def hostile_pickle(rng):
    """A pickle by one of the three ways."""
    if rng.random() < 0.4:
        return changed(rng, real_pickle(rng)) if rng.random() < 0.9 else real_pickle(rng)
    return random_opcodes(rng) if rng.random() < 0.6 else nested_pickle(rng)


def plain(value, seen):
    """A value with arrays and what was met before as tuples, to be compared with another."""
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, value.shape, value.tobytes())
    if id(value) in seen:
        return ("seen", seen[id(value)])
    if isinstance(value, dict | list | tuple):
        seen[id(value)] = len(seen)
        parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
        return (type(value).__name__, *(plain(part, seen) for part in parts))
    if isinstance(value, bytearray):
        return ("bytes", bytes(value))
    if isinstance(value, float):
        return repr(value)  # NaN is not equal to itself
    if isinstance(value, np.dtype) or not isinstance(value, str | bytes | int | set | frozenset | None):
        return "of array"  # a type or a function, for which something else stands here
    return (type(value).__name__, value)
