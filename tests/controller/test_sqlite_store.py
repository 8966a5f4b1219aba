"""The SQLite store: durable, private to its owner, and clear about what is wrong with its file."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from netcon.controller.errors import CorruptStore, StoreFailed
from netcon.controller.sqlite_store import SqliteStore

ROWS = [("member", "8056c2e21c000001/deadbeef01", '{"a":1}'), ("network", "8056c2e21c000001", '{"name":"caf\\u00e9"}')]


def test_what_was_committed_is_loaded_again(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "controller.d") as store:
        assert store.load() == []
        store.commit(ROWS)
        store.commit([("network", "8056c2e21c000002", "{}")])
        store.commit([("network", "8056c2e21c000002", None), ("network", "8056c2e21c000001", "{}")])
    with SqliteStore(tmp_path / "controller.d") as store:
        assert store.load() == [ROWS[0], ("network", "8056c2e21c000001", "{}")]


def test_file_and_directory_belong_to_the_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "controller.d"
    directory.mkdir(mode=0o755)
    with SqliteStore(directory) as store:
        store.commit(ROWS)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}


def test_a_failed_commit_keeps_nothing(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as store:
        store.commit(ROWS)
        with pytest.raises(StoreFailed, match=r"controller\.sqlite3"):
            store.commit([("network", "8056c2e21c000001", "{}"), ("network", "8056c2e21c000009", ["no text"])])  # type: ignore[list-item]
        assert store.load() == ROWS
        store.commit([("network", "8056c2e21c000009", "{}")])
        assert len(store.load()) == 3


def test_a_commit_survives_a_process_that_dies(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from netcon.controller.sqlite_store import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1])); store.commit([('network', '0' * 16, '{}')])\n"
        "store._connection.execute('BEGIN IMMEDIATE'); store._connection.execute(\"INSERT INTO records\"\n"
        "    \" VALUES ('network', 'x', '{}')\")\n"
        "os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert process.returncode == -9
    with SqliteStore(tmp_path) as store:
        assert store.load() == [("network", "0" * 16, "{}")]


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be looked at" * 40, b"SQLite format 3\0" + bytes(range(256)) * 40]
)
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "controller.sqlite3"
    path.write_bytes(content)
    with pytest.raises(CorruptStore, match=r"controller\.sqlite3 is corrupt.*backup"):
        SqliteStore(tmp_path)
    assert path.read_bytes() == content, "a corrupt file is left for its owner to look at"


def test_a_damaged_page_is_noticed(tmp_path: Path) -> None:
    with SqliteStore(tmp_path) as store:
        store.commit([("network", f"{n:016x}", "x" * 500) for n in range(100)])
    path = tmp_path / "controller.sqlite3"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 3 + 200] = b"\xa5" * 200
    path.write_bytes(data)
    with pytest.raises(CorruptStore, match=r"controller\.sqlite3"):
        SqliteStore(tmp_path).load()


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "controller.sqlite3")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(CorruptStore, match="schema version 2"):
        SqliteStore(tmp_path)


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "controller.sqlite3")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(CorruptStore, match="another program"):
        SqliteStore(tmp_path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "controller.sqlite3").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreFailed, match="cannot create"):
        SqliteStore(tmp_path)


def test_a_directory_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match="cannot create"):
        SqliteStore(tmp_path / "file" / "controller.d")
