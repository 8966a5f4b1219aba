"""Makes from symbols.toml everything that must agree with it: the export map, the declarations, the wrappers, the dispatch of
syscall(), and the documentation page.

    python intercept/generate.py FOLDER    writes exports.map, aliases.txt, declarations.h, wrappers.c and dispatch.h
    python intercept/generate.py --docs    writes docs/intercept-symbols.md
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "symbols.toml"
DOCS = HERE.parent / "docs" / "intercept-symbols.md"
KINDS = ("call", "hand", "alias", "number")
BANNER = "/* Generated from intercept/symbols.toml by intercept/generate.py. */\n"


class TableError(Exception):
    """symbols.toml contradicts itself; the message names the symbol."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A wrapped symbol. `dispatch` is the argument list by which syscall() passes it on, empty if it does not."""

    name: str
    kind: str
    returns: str
    arguments: str
    number: str
    dispatch: str
    of: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Table:
    symbols: tuple[Symbol, ...]
    left: dict[str, str]
    """Name to reason, of the symbols that are seen and left alone."""

    @property
    def exported(self) -> frozenset[str]:
        return frozenset(symbol.name for symbol in self.symbols if symbol.kind != "number")

    @property
    def known(self) -> frozenset[str]:
        return self.exported | frozenset(self.left)


def load(path: Path = TABLE) -> Table:
    """Reads and checks the table. Raises TableError."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    symbols = []
    for entry in document["symbol"]:
        name, kind, arguments = entry["name"], entry["kind"], entry.get("arguments", "")
        if kind not in KINDS:
            raise TableError(f"{name}: kind {kind!r} is none of {', '.join(KINDS)}")
        if not entry.get("reason"):
            raise TableError(f"{name}: say why it is here (reason)")
        if kind in ("call", "hand") and not (arguments and entry.get("source")):
            raise TableError(f"{name}: arguments and source are needed")
        dispatch = arguments if kind == "call" else entry.get("dispatch", "")
        number = entry.get("number", name if kind in ("call", "number") else "")
        fields = {"returns": entry.get("returns", "int"), "of": entry.get("of", ""), "source": entry.get("source", "")}
        symbols.append(Symbol(name, kind, arguments=arguments, number=number, dispatch=dispatch, reason=entry["reason"], **fields))
    left = {name: group["reason"] for group in document["left"] for name in group["names"]}
    names = [symbol.name for symbol in symbols] + [name for group in document["left"] for name in group["names"]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TableError(f"listed twice: {', '.join(sorted(twice))}")
    for symbol in symbols:
        if symbol.kind == "alias" and symbol.of not in names:
            raise TableError(f"{symbol.name}: {symbol.of!r} is not in the table")
    return Table(tuple(symbols), left)


def parameters(arguments: str) -> list[tuple[str, str]]:
    """(type, name) of each parameter; arrays become pointers. The ellipsis is left out."""
    result = []
    for argument in filter(lambda text: text != "...", map(str.strip, arguments.split(","))):
        match = re.fullmatch(r"(.*?)(\w+)(\[\])?", argument)
        if match is None:
            raise TableError(f"not a parameter: {argument!r}")
        result.append((match[1].strip() + ("*" if match[3] else ""), match[2]))
    return result


def exports(table: Table) -> str:
    # No version node has a name: a symbol without version satisfies a reference to any version, and musl has none.
    return "{\n  global:\n" + "".join(f"    {name};\n" for name in sorted(table.exported)) + "  local: *;\n};\n"


def aliases(table: Table) -> str:
    return "".join(f"{symbol.name}={symbol.of}\n" for symbol in table.symbols if symbol.kind == "alias")


def declarations(table: Table) -> str:
    # The C name differs from the symbol's, so that the C library's prototypes, which differ between C libraries, do not matter.
    lines = [BANNER, "#ifndef NETCON_DECLARATIONS_H\n#define NETCON_DECLARATIONS_H\n\n"]
    for symbol in table.symbols:
        if symbol.dispatch:
            lines.append(f"long virtual_{symbol.name}({symbol.dispatch});\nlong entered_{symbol.name}({symbol.dispatch});\n")
        if symbol.kind in ("call", "hand"):
            visible = '__attribute__((visibility("default")))'
            lines.append(f'{visible} {symbol.returns} wrapped_{symbol.name}({symbol.arguments}) __asm__("{symbol.name}");\n')
    return "".join([*lines, "\n#endif\n"])


def trace_form(symbol: Symbol) -> str:
    """The initialiser of a struct trace_form (trace.h): which bytes of a call are shown, told by its parameters."""
    arguments = parameters(symbol.dispatch)
    shown, at = "TRACE_NO_BYTES", 0
    for index, (kind, name) in enumerate(arguments):
        following = arguments[index + 1][0] if index + 1 < len(arguments) else ""
        if kind in ("const struct sockaddr *", "const void *") and following == "socklen_t":
            shown, at = "TRACE_BYTES_IN", index
        elif kind in ("struct sockaddr *", "void *") and following == "socklen_t *":
            shown, at = "TRACE_BYTES_OUT", index
        elif kind.endswith("struct msghdr *"):
            shown, at = "TRACE_MESSAGE_OUT", index
        elif kind == "const char *" and name == "path":
            shown, at = "TRACE_TEXT", index
    of = str(arguments[0][1] == "descriptor").lower()
    makes = str(symbol.name in ("socket", "accept", "accept4")).lower()
    return f'{{"{symbol.name}", {len(arguments)}, {shown}, {at}, {of}, {makes}}}'


def wrappers(table: Table) -> str:
    lines = [BANNER, '#include "wrapped.h"\n\n#include "environment.h"\n#include "kernel.h"\n#include "trace.h"\n\n']
    for symbol in table.symbols:
        if not symbol.dispatch:
            continue
        names = ", ".join(name for _, name in parameters(symbol.dispatch))
        longs = ", ".join(f"(long){name}" for _, name in parameters(symbol.dispatch))
        # The trace is a function of its own, so that a call without one needs no room on the stack for it.
        lines.append(f"__attribute__((noinline, cold)) static long traced_{symbol.name}({symbol.dispatch}) {{\n")
        lines.append(f"    static const struct trace_form form = {trace_form(symbol)};\n    struct trace_call call;\n")
        lines.append(f"    trace_begin(&call, &form, (const long[6]){{{longs}}});\n")
        lines.append(f"    return trace_end(&call, virtual_{symbol.name}({names}));\n}}\n\n")
        lines.append(f"long entered_{symbol.name}({symbol.dispatch}) {{\n")
        lines.append(f"    return is_traced() ? traced_{symbol.name}({names}) : virtual_{symbol.name}({names});\n}}\n\n")
        if symbol.kind == "call":
            kernel = f"raw(SYS_{symbol.number}, {names})"
            cast = "" if symbol.returns == "long" else f"({symbol.returns})"
            lines.append(f"{symbol.returns} wrapped_{symbol.name}({symbol.arguments}) {{\n")
            lines.append(f"    return {cast}result(is_active() ? entered_{symbol.name}({names}) : {kernel});\n}}\n\n")
    return "".join(lines)


def dispatch(table: Table) -> str:
    lines = [BANNER]
    for symbol in table.symbols:
        if symbol.dispatch:
            passed = ", ".join(f"({kind})a[{index}]" for index, (kind, _) in enumerate(parameters(symbol.dispatch)))
            lines.append(f"case SYS_{symbol.number}:\n    return entered_{symbol.name}({passed});\n")
        elif symbol.kind == "number":
            lines.append(f"case SYS_{symbol.number}:\n    return -ENOSYS;\n")
    return "".join(lines)


def documentation(table: Table) -> str:
    lines = [
        "# Symbols of the intercept library\n",
        "\nGenerated from `intercept/symbols.toml` by `python intercept/generate.py --docs`; do not edit.\n",
        "\n## Wrapped\n\n| symbol | done in | how |\n|---|---|---|\n",
    ]
    for symbol in table.symbols:
        if symbol.kind == "number":
            continue
        where = f"`{symbol.source}`" if symbol.source else f"alias of `{symbol.of}`"
        lines.append(f"| `{symbol.name}` | {where} | {symbol.reason} |\n")
    numbers = [f"`{symbol.number}`" for symbol in table.symbols if symbol.dispatch]
    lines.append(f"\n`syscall()` passes on by number: {', '.join(numbers)}.\n")
    for symbol in table.symbols:
        if symbol.kind == "number":
            lines.append(f"`{symbol.name}`: {symbol.reason}.\n")
    lines.append("\n## Seen and left alone\n\n| symbols | why |\n|---|---|\n")
    for reason in dict.fromkeys(table.left.values()):
        names = " ".join(f"`{name}`" for name, why in table.left.items() if why == reason)
        lines.append(f"| {names} | {reason} |\n")
    return "".join(lines)


def write(folder: Path, table: Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "exports.map").write_text(exports(table))
    (folder / "aliases.txt").write_text(aliases(table))
    (folder / "declarations.h").write_text(declarations(table))
    (folder / "wrappers.c").write_text(wrappers(table))
    (folder / "dispatch.h").write_text(dispatch(table))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--docs"]:
            DOCS.parent.mkdir(exist_ok=True)
            DOCS.write_text(documentation(load()))
        case [folder]:
            write(Path(folder), load())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
