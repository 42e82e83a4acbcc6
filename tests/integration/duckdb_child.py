"""
A process that uses one DuckDB database and does what its parent tells it.

    child = Child(path)            # starts the process
    child("run", "SELECT 1")       # waits for its answer, raises its error as ChildError
    child.post("read", 100)        # starts something, `child.answer()` waits for it
"""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

TIMEOUT_S = 60.0


class ChildError(Exception):
    """An error in the child: its class' name and its text."""

    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.name = name


class Child:
    def __init__(self, path, *, timeout_s=TIMEOUT_S, external=()):
        arguments = (path, timeout_s, *external)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.duckdb_child", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.pid = self.process.pid

    def post(self, command, *arguments):
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise ChildError("ProcessEnded", f"exit status {self.process.wait()}")
        value, error = json.loads(line)
        if error:
            raise ChildError(*error)
        return value

    def __call__(self, command, *arguments):
        self.post(command, *arguments)
        return self.answer()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def end(self):
        """Let the process end as a program does that is through."""
        with suppress(OSError):
            self.process.stdin.close()
        status = self.process.wait(TIMEOUT_S)
        self.process.stdout.close()
        return status


def main(path, timeout_s, *external):
    from levada.errors import StoreGone
    from levada.stores.duckdb import ownership
    from levada.stores.duckdb.access import Access

    place = ownership.Place(path, timeout_s=float(timeout_s), access=Access(external))
    state = {"connection": None, "stop": threading.Event()}

    def connection():
        if state["connection"] is None:
            state["connection"] = ownership.connect(place)
        return state["connection"]

    def run(sql, params=None):
        return connection().execute(sql, params).fetchall()

    def arrow(count):
        import pyarrow

        table = pyarrow.table({"n": list(range(count)), "t": ["x"] * count})
        total = connection().execute("SELECT sum(n) FROM given", arrow={"given": table})
        back = connection().fetch_arrow("SELECT n, 'é' AS t FROM range(?) r(n)", [count])
        return [int(total.fetchone()[0]), back.num_rows, back.column("t")[0].as_py()]

    def stream(rows):
        cursor = connection().execute("SELECT n FROM range(?) r(n)", [rows])
        total = 0
        while chunk := cursor.fetchmany(1000):
            total += len(chunk)
        return total

    def first_rows(rows):
        state["cursor"] = connection().execute("SELECT n FROM range(?) r(n)", [rows])
        return [row[0] for row in state["cursor"].fetchmany(2)]

    def write(batches):
        """Write batches of ten rows that sum to zero, each in one transaction."""
        done = 0
        while done < batches:
            number = connection().execute("SELECT coalesce(max(batch), 0) + 1 FROM t").fetchone()[0]
            try:
                connection().begin()
                for value in range(-5, 5):
                    run("INSERT INTO t VALUES (?, ?)", [number, value + 0.5])
                connection().commit()
            except StoreGone:
                continue
            done += 1
        return done

    def read(times):
        """Count, over and over, batches that are not whole."""
        highest = 0
        for _ in range(times):
            broken, last = run(
                "SELECT count(*) FILTER (s <> 0 OR n <> 10), coalesce(max(batch), 0) FROM "
                "(SELECT batch, sum(v) s, count(*) n FROM t GROUP BY batch)"
            )[0]
            if broken or last < highest:
                return [broken, last, highest]
            highest = last
        return [0, highest, highest]

    def fork():
        """Fork; the child uses the connection, and ends as a program does."""
        run("INSERT INTO t VALUES (1, 1)")
        child = os.fork()
        if child == 0:
            status = 0
            try:
                run("INSERT INTO t VALUES (2, 2)")
                status = 0 if not ownership.owns(path) else 3
            except BaseException:
                status = 4
            sys.exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    commands = {
        "run": run,
        "arrow": arrow,
        "stream": stream,
        "first_rows": first_rows,
        "rest": lambda: len(state["cursor"].fetchall()),
        "write": write,
        "read": read,
        "fork": fork,
        "begin": lambda: connection().begin(),
        "commit": lambda: connection().commit(),
        "rollback": lambda: connection().rollback(),
        "owns": lambda: ownership.owns(path),
        "take_over": lambda grace_s: ownership.take_over(place, grace_s),
        "delete": lambda grace_s: ownership.delete(place, grace_s),
    }
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            answer = [commands[command](*arguments), None]
        except Exception as error:
            answer = [None, [type(error).__name__, str(error)]]
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
