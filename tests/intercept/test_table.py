"""symbols.toml and what is generated from it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("netcon_intercept_generate", ROOT / "intercept" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def test_no_symbol_is_listed_twice_and_each_has_a_reason() -> None:
    table = generate.load()
    assert all(symbol.reason for symbol in table.symbols)
    assert not table.exported & set(table.left)
    assert all(table.left.values())


def test_the_documentation_is_of_this_table() -> None:
    assert generate.DOCS.read_text() == generate.documentation(generate.load()), "run: python intercept/generate.py --docs"


def test_each_source_file_named_in_the_table_exists() -> None:
    for symbol in generate.load().symbols:
        if symbol.source:
            assert (ROOT / "intercept" / "src" / symbol.source).is_file()


def test_the_dispatch_of_syscall_covers_every_system_call() -> None:
    table = generate.load()
    text = generate.dispatch(table)
    for symbol in table.symbols:
        if symbol.kind == "call":
            assert f"case SYS_{symbol.number}:\n    return entered_{symbol.name}(" in text
    assert "case SYS_io_uring_setup:\n    return -ENOSYS;" in text


def test_parameters_are_taken_apart() -> None:
    assert generate.parameters("int a, const struct sockaddr *b, char *const c[], ...") == [
        ("int", "a"),
        ("const struct sockaddr *", "b"),
        ("char *const*", "c"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[symbol]]\nname = "a"\nkind = "odd"\nreason = "r"\n', "kind 'odd'"),
        ('[[symbol]]\nname = "a"\nkind = "call"\nreason = "r"\n', "arguments and source"),
        ('[[symbol]]\nname = "a"\nkind = "number"\n', "say why"),
        ('[[symbol]]\nname = "a"\nkind = "alias"\nof = "b"\nreason = "r"\n', "'b' is not in the table"),
        ('[[symbol]]\nname = "close"\nkind = "number"\nreason = "r"\n', "listed twice: close"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "symbols.toml"
    path.write_text(text + '[[left]]\nnames = ["close"]\nreason = "r"\n')
    with pytest.raises(generate.TableError, match=message):
        generate.load(path)
