"""Bytes of real files, damaged by chance: bits turned, parts cut, copied, put together, lines doubled and swapped.

What comes out depends on the number of the case and on nothing else: from it a finding can be had again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

YAML_WORDS = (
    b": ", b"- ", b"? ", b"{", b"}", b"[", b"]", b",", b"#", b" #", b"&a ", b"*a", b"!", b"!!str ", b"!!python/none ",
    b"|\n",
    b">-\n", b"'", b'"', b"\\", b"\n", b"\r\n", b"\r", b"\t", b"  ", b"---\n", b"\n...\n", b"%YAML 1.1\n", b"<<: ",
    b"~", b"null",
    b"no", b"0x10", b"1e3", b"2024-01-01", b"22:30", b"=", b"\x00", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xef\xbb\xbf", b"\xff",
    b"\xed\xa0\x80", b"\xd0\xb0", b'"\\ud800"', b'"\\U00110000"', b'"\\x00"', b"true", b"users:", b"infra", b".git",
    b"root", b"../",
    b"{user}", b"{{", b"}}", b"admin", b"0", b"-1", b"65536", b"1_0", b"01", b"\xc2\xa0", b"@", b"`", b"a" * 40,
    b"[" * 40,
)  # fmt: skip
JSON_WORDS = (
    b"null", b"true", b"false", b"-1", b"0", b"1.5", b"1e999", b"NaN", b"-Infinity", b"[]", b"{}", b'""', b'"x"',
    b"[" * 3000,
    b"9" * 5000, b'"\\ud800"', b'"\\u0000"', b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\xff", b"\x00",
    b'{"a":', b"\xef\xbb\xbf",
)  # fmt: skip
LINE_WORDS = (
    b":", b"::", b",", b"+", b"-", b"#", b" ", b"\t", b"\n", b"\r", b"\x00", b"\xff", b"\xe2\x80\xa8", b"\x0b", b"0",
    b"-1", b"1e3",
    b"99999999999", b"9" * 5000, b"4294967296", b"\xd9\xa1", b"\xc2\xb2", b"root", b"alice", b"!", b"*", b"\\040",
    b"\\", b" - ",
)  # fmt: skip
ENV_WORDS = (
    b"T3_PORT=", b"=", b"'", b'"', b"\\", b"\\\n", b"\\\r", b"\n", b"\r\n", b"#", b";", b" ", b"\t", b"$", b"`",
    b"\x00", b"\xff",
    b"export ", b"\n#\\\n", b'"\\\n', b"3773",
)  # fmt: skip


def mutated(number: int, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return what becomes of one of the seeds; `words` are those that mean something in such files."""
    random = Random(number)  # noqa: S311 (no secret)
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _mutate(random, data, seeds, words)
    return bytes(data)


def _mutate(random: Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 2, 4, 16, 64)))
    match random.randrange(11):
        case 0 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 1 if at < len(data):
            data[at] = random.randrange(256)
        case 2:
            del data[at:end]
        case 3:
            del data[at:]
        case 4:
            data[at:at] = data[at:end] * random.choice((1, 2, 50))
        case 5:
            other = random.choice(seeds)
            data[at:] = other[random.randrange(len(other) + 1) :]
        case 6:
            data[at:end] = random.choice(words)
        case 7 | 8 as change:
            _change_lines(random, data, swap=change == 7)
        case _:
            data[at:at] = random.choice(words)


def _change_lines(random: Random, data: bytearray, *, swap: bool) -> None:
    lines = bytes(data).split(b"\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    if swap:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(other, lines[one])
    data[:] = b"\n".join(lines)
