"""The embedded log's file: several processes, forks, damage, full disks, other people's files."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from levada.changes import CHANGES, Position
from levada.errors import LogCorrupt, LogFenced, LogFull, LogUnavailable
from levada.log import open_log
from levada.log.embedded import EmbeddedLog
from levada.log.memory import MemoryLog

from .test_log import feed, ids, row, start


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.sqlite3"


@pytest.fixture
def log(path):
    log = EmbeddedLog(path, poll_s=0.005)
    yield log
    log.close()


def in_process(path, code, **popen):
    """Start Python with `log` open on `path` and run `code` there."""
    head = (
        "import sys; from levada.changes import *; from levada.log.embedded import EmbeddedLog;"
        f"log = EmbeddedLog({str(path)!r}, poll_s=0.005)\n"
        f"row = {row(1)!r}\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        **popen,
    )


def answer(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.strip()


class TestLife:
    def test_it_keeps_everything_when_opened_again(self, log, path):
        feed(log, row(1))
        log.commit("readers", log.end(CHANGES))
        epoch = log.epoch
        log.close()
        again = EmbeddedLog(path)
        assert again.epoch == epoch
        assert ids(again.read(start(again), 10)) == [1]
        assert again.cursor("default") == "1"
        assert again.committed("readers", CHANGES) == again.end(CHANGES)
        again.close()

    def test_a_closed_log_opens_again_by_itself(self, log):
        feed(log, row(1))
        log.close()
        feed(log, row(2))
        assert ids(log.read(start(log), 10)) == [1, 2]

    def test_closing_disturbs_nobody_who_is_using_it(self, log):
        """`verify` closes the process's log while the keeper's threads go on reading it."""
        feed(log, *[row(n) for n in range(50)])
        errors, stop = [], threading.Event()

        def read():
            try:
                while not stop.is_set():
                    assert len(log.read(start(log), 100)) == 50
                    log.wait(log.end(CHANGES), 0.001)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            log.close()
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not errors

    def test_only_its_user_may_read_the_file(self, log, path):
        feed(log, row(1))
        for each in path.parent.glob("log.sqlite3*"):
            assert stat.S_IMODE(each.stat().st_mode) == 0o600, each

    def test_two_objects_of_one_file_are_one_log(self, log, path):
        other = EmbeddedLog(path, poll_s=60)
        woken = []
        thread = threading.Thread(target=lambda: woken.append(other.wait(start(other), 60)))
        thread.start()
        feed(log, row(1))
        thread.join(50)  # far below poll_s: the append itself woke it
        assert woken == [True]
        assert other.epoch == log.epoch
        other.close()

    def test_a_commit_is_durable_before_append_returns(self, log):
        feed(log, row(1))
        assert log._file._writers[True].execute("PRAGMA synchronous").fetchone() == (2,)


class TestSettings:
    def test_open_log_gives_one_object_a_process(self, settings, path):
        settings.LEVADA = {"LOG": {"NAME": str(path)}}
        assert open_log() is open_log()
        assert open_log().path == path

    def test_the_log_in_memory_is_one_a_process(self, settings):
        settings.LEVADA = {"LOG": {"ENGINE": "levada.log.memory"}}
        assert isinstance(open_log(), MemoryLog)
        assert open_log() is open_log()

    @pytest.mark.parametrize(
        "options",
        [
            {"ENGINE": "levada.log.nowhere"},
            {"ENGINE": "levada.changes"},
            {"NAME": "log.sqlite3", "PORT": 9092},
            {"ENGINE": "levada.log.memory", "PORT": 9092},
        ],
    )
    def test_what_cannot_work_says_what_to_write(self, settings, options):
        from levada.errors import ConfigurationError

        settings.LEVADA = {"LOG": options}
        with pytest.raises(ConfigurationError, match="LEVADA\\['LOG'\\]"):
            open_log()


class TestProcesses:
    def test_a_reader_in_another_process_is_woken(self, log, path):
        feed(log)
        reader = in_process(
            path,
            "p = log.beginning(CHANGES); print('ready', flush=True)\n"
            "assert log.wait(p, 60); print([r.source_id for r in log.read(p, 10)])",
        )
        assert reader.stdout.readline() == "ready\n"
        feed(log, row(7), row(8))
        assert answer(reader) == "[7, 8]"

    def test_many_processes_read_what_one_appends(self, log, path):
        feed(log)
        code = (
            "p = log.beginning(CHANGES); found = []\n"
            "while len(found) < 300:\n"
            "    assert log.wait(p, 60)\n"
            "    b = log.read(p, 20); assert len(b) % 3 == 0; p = b.end\n"
            "    found += [r.source_id for r in b]; log.commit(sys.argv[0] + str(id(b)), p)\n"
            "print(found == list(range(300)))"
        )
        readers = [in_process(path, code) for _ in range(3)]
        for n in range(100):
            feed(log, row(3 * n), row(3 * n + 1), row(3 * n + 2))
        assert [answer(reader) for reader in readers] == ["True"] * 3

    def test_processes_that_create_the_file_at_once_agree_on_it(self, path):
        racers = [in_process(path, "print(log.epoch)") for _ in range(5)]
        assert len({answer(racer) for racer in racers}) == 1

    def test_a_producer_in_another_process_is_fenced(self, log, path):
        feed(log, row(1))
        feed(log, row(2))
        other = in_process(
            path,
            "from levada.errors import LogFenced\n"
            "try: log.append([row], source='default', expected='1', cursor='x')\n"
            "except LogFenced: print('fenced')",
        )
        assert answer(other) == "fenced"
        assert ids(log.read(start(log), 10)) == [1, 2]

    def test_a_producer_killed_at_its_commit_leaves_all_or_nothing(self, log, path):
        feed(log, row(1))
        environment_point = {**os.environ, "LEVADA_FAULT": "relay.in_append"}
        killed = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from levada.log.embedded import EmbeddedLog\n"
                f"EmbeddedLog({str(path)!r}).append([{row(2)!r}], source='default',"
                " expected='1', cursor='2')",
            ],
            env={**environment_point, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert killed.wait(60) == -signal.SIGKILL
        assert ids(log.read(start(log), 10)) == [1]
        assert log.cursor("default") == "1"
        feed(log, row(3))
        assert ids(log.read(start(log), 10)) == [1, 3]

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_uses_connections_of_its_own(self, log):
        feed(log, row(1))
        assert len(log.read(start(log), 10)) == 1
        mine = {id(connection) for connection in log._file._opened.readers}
        pid = os.fork()
        if pid == 0:  # no exception may escape into the child's copy of pytest
            code = 1
            try:
                assert log._file._opened is None
                assert not log._file._writers
                feed(log, row(2))
                theirs = {id(connection) for connection in log._file._opened.readers}
                code = 0 if theirs and not theirs & mine else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        feed(log, row(3))
        assert ids(log.read(start(log), 10)) == [1, 2, 3]

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_fork_while_another_thread_writes_does_not_hang_the_child(self, log):
        feed(log, row(1))
        inside, go_on = threading.Event(), threading.Event()

        def hold():
            with log._file.writing():
                inside.set()
                go_on.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        assert inside.wait(60)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert log._file._writing.acquire(timeout=10)
                code = 0
            finally:
                os._exit(code)
        go_on.set()
        thread.join(60)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def fill(log, count=400):
    feed(log, *[row(n, after="x" * 200) for n in range(count)])
    log.close()


def read_all(log):
    position = log.beginning(CHANGES)
    while batch := log.read(position, 100):
        position = batch.end


class TestDamage:
    """Each error names the file and the next step, and the file is left alone."""

    def refused(self, path, error=LogCorrupt, match="rebuild"):
        before = path.read_bytes() if path.is_file() else None
        log = EmbeddedLog(path)
        with pytest.raises(error, match=match) as caught:
            read_all(log)
        log.close()
        assert str(path) in str(caught.value)
        if before is not None:
            assert path.read_bytes() == before

    @pytest.mark.parametrize("size", [1, 2, 99, 100, 512, 4095, 4096, 8192, 20_000, -4096, -1])
    def test_a_file_cut_short(self, log, path, size):
        fill(log)
        with path.open("r+b") as file:
            file.truncate(size if size > 0 else path.stat().st_size + size)
        self.refused(path)

    def test_a_file_cut_to_nothing_beside_its_write_ahead_log(self, log, path):
        feed(log, row(1))
        wal = path.with_name("log.sqlite3-wal").read_bytes()
        log.close()
        path.write_bytes(b"")
        path.with_name("log.sqlite3-wal").write_bytes(wal)
        self.refused(path)

    @pytest.mark.parametrize("offset", [0, 100, 4096, 40_000])
    def test_a_file_overwritten_in_part(self, log, path, offset):
        fill(log)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xa5" * 60_000)
        self.refused(path)

    @pytest.mark.parametrize(
        "content", [b"not a database at all", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 9]
    )
    def test_a_file_that_is_no_database(self, path, content):
        path.write_bytes(content)
        self.refused(path)

    def test_somebody_elses_database(self, path):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (id integer)")
        connection.close()
        self.refused(path, match="not a log of Levada")

    def test_a_log_of_a_newer_levada(self, log, path):
        fill(log)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        self.refused(path, match="newer")

    def test_a_last_page_lost_with_the_write_ahead_log(self, log, path):
        """A copy made without its -wal file lacks the newest records; readers notice."""
        feed(log, row(1))
        log._file.scrub()
        copy = path.read_bytes()
        feed(log, row(2))
        end, epoch = log.end(CHANGES), log.epoch
        log.close()
        path.write_bytes(copy)
        again = EmbeddedLog(path)
        with pytest.raises(LogCorrupt, match="older copy"):
            again.read(Position(epoch, CHANGES, end.offset), 10)
        again.close()

    def test_damage_while_the_log_is_open(self, log, path):
        fill(log, 4000)
        assert log.end(CHANGES).offset == 4000
        with path.open("r+b") as file:
            file.truncate(200_000)
        with pytest.raises(LogCorrupt, match="rebuild"):
            log.read(start(log), 4000)

    @pytest.mark.parametrize("replaced", [False, True])
    def test_a_file_deleted_under_an_open_log_takes_no_more_records(self, log, path, replaced):
        feed(log, row(1))
        path.unlink()
        if replaced:
            path.write_bytes(b"")
        for use in (
            lambda: feed(log, row(2)),
            lambda: log.read(Position(log.epoch, CHANGES, 0), 1),
        ):
            with pytest.raises(LogCorrupt, match="deleted or replaced"):
                use()

    def test_no_folder(self, tmp_path):
        self.refused(tmp_path / "nowhere" / "log.sqlite3", LogUnavailable, "folder")

    def test_a_folder_in_its_place(self, path):
        path.mkdir()
        self.refused(path, LogUnavailable, "directory")

    def test_a_file_of_another_user(self, log, path, monkeypatch):
        fill(log)

        def refuse(*args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("levada.log.file.os.open", refuse)
        self.refused(path, LogUnavailable, "Permission denied")

    def test_a_locked_file(self, log, path, monkeypatch):
        monkeypatch.setattr("levada.log.file.BUSY_S", 0.05)
        feed(log, row(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        log.close()
        with pytest.raises(LogUnavailable, match="fuser"):
            feed(log, row(2))
        other.execute("ROLLBACK")
        other.close()
        feed(log, row(2))
        assert ids(log.read(start(log), 10)) == [1, 2]

    def test_a_full_disk_loses_nothing(self, log):
        feed(log, row(1))
        writer = log._file._writers[True]
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LogFull, match="Free some space"):
            feed(log, *[row(n, after="x" * 1000) for n in range(100)])
        assert log.cursor("default") == "1"
        writer.execute("PRAGMA max_page_count = 1000000")
        feed(log, row(2))
        assert ids(log.read(start(log), 10)) == [1, 2]


def test_forgotten_content_is_gone_from_the_disk(log, path):
    feed(log, *[row(n, after=f"secret number {n}") for n in range(50)])
    assert log.forget("shop.Order", "[7]") == 1
    on_disk = b"".join(each.read_bytes() for each in path.parent.glob("log.sqlite3*"))
    assert b"secret number 7" not in on_disk
    assert b"secret number 8" in on_disk


def test_retention_gives_its_room_back_to_new_records(log, path):
    def batch(n):
        feed(log, *[row(n, after="x" * 500) for n in range(200)])

    for n in range(5):
        batch(n)
    log.close()
    size = path.stat().st_size
    for n in range(20):
        log.prune(older_than_s=-1)
        batch(n)
    log.close()
    assert path.stat().st_size <= size


def test_pruning_in_small_pieces_prunes_everything(log, monkeypatch):
    monkeypatch.setattr("levada.log.embedded.PRUNE_ROWS", 7)
    feed(log, *[row(n) for n in range(50)])
    feed(log, row(50))
    assert log.prune(older_than_s=-1) == 51
    feed(log, row(51))
    assert ids(log.read(start(log), 10)) == [51]


def test_a_fenced_append_leaves_no_transaction_open(log):
    feed(log, row(1))
    with pytest.raises(LogFenced):
        log.append([row(2)], source="default", expected=None, cursor="2")
    assert not log._file._writers[True].in_transaction
