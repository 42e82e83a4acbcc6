"""A project of its own for a test: a folder, a source database, and commands in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid
from urllib.parse import urlsplit, urlunsplit

from tests.conditions import wait_until
from tests.settings import SOURCE_URL

MANAGE = "import sys; from django.core.management import execute_from_command_line as run; run()"
SETUP = "import django; django.setup()\n"


class Project:
    """`settings` in the folder `path`; on PostgreSQL with a database made for it alone."""

    def __init__(self, path, settings="tests.settings"):
        self.path = path
        self.settings = settings
        self.source_url = self._create_database() if SOURCE_URL else ""
        self.keepers = []
        self.started = []

    def _create_database(self):
        import psycopg

        url = urlsplit(SOURCE_URL)
        name = f"levada_project_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(SOURCE_URL, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}")
        return urlunsplit((url.scheme, url.netloc, f"/{name}", "", ""))

    @property
    def environment(self):
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": self.settings,
            "LEVADA_TEST_DIR": str(self.path),
            "LEVADA_TEST_SOURCE": self.source_url,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def log(self):
        return self.path / "levada-log.sqlite3"

    def manage(self, *words, exit_status=0, input_text=None):
        """Run `manage.py words`, check its exit status, return what it printed."""
        ran = subprocess.run(
            [sys.executable, "-c", MANAGE, *words],
            env=self.environment,
            input=input_text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = ran.stdout + ran.stderr
        assert ran.returncode == exit_status, f"{words}: exit {ran.returncode}\n{said}"
        return said

    def levada(self, *words, exit_status=0, input_text=None):
        return self.manage("levada", *words, exit_status=exit_status, input_text=input_text)

    def python(self, code):
        """Run `code` in a process where Django is set up; return what it printed."""
        ran = subprocess.run(
            [sys.executable, "-c", SETUP + code],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def open_python(self, code):
        """Start `code` in a process where Django is set up, with pipes to talk to it."""
        return subprocess.Popen(
            [sys.executable, "-c", SETUP + code],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments, fault=""):
        """Start `python arguments` armed with `fault`; it ends with the project at the latest."""
        started = subprocess.Popen(
            [sys.executable, *arguments],
            env={**self.environment, "LEVADA_FAULT": fault},
            stdout=subprocess.DEVNULL,
        )
        self.started.append(started)
        return started

    def keep(self, *options, fault=""):
        keeper = KeeperProcess(self, options, fault)
        self.keepers.append(keeper)
        return keeper

    def close(self):
        for keeper in self.keepers:
            keeper.kill()
        for process in self.started:
            process.kill()
            process.wait()
        if self.source_url:
            import psycopg

            name = urlsplit(self.source_url).path.lstrip("/")
            with psycopg.connect(SOURCE_URL, autocommit=True) as server:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")


class KeeperProcess:
    """`manage.py levada run` with JSON log lines in a file and a health port of its own."""

    def __init__(self, project, options=(), fault=""):
        self.lines_path = project.path / f"keeper-{uuid.uuid4().hex[:6]}.log"
        with self.lines_path.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MANAGE, "levada", "run", "--health-port", "0", *options],
                env={**project.environment, "LEVADA_FAULT": fault},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.port = wait_until(self._port, message=f"no health port:\n{self.said()}")

    def said(self):
        return self.lines_path.read_text()

    def lines(self):
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def _port(self):
        assert self.process.poll() is None, self.said()
        for line in self.lines():
            if line["part"] == "health":
                return int(line["message"].split(":")[2].partition("/")[0])
        return None

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def metric(self, sample):
        """Return the value of one sample, None where it is not exposed."""
        for line in self.get("/metrics").splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return None

    def wait_for_metric(self, sample, value):
        wait_until(
            lambda: self.metric(sample) == value,
            message=f"{sample} did not become {value}:\n{self.get('/metrics')}\n{self.said()}",
        )

    def wait_until_applied(self, alias="analytics"):
        """Wait until the outbox is empty and the store has all that the log holds."""
        # In this order: what leaves the outbox first is in the log, and the store behind it.
        self.wait_for_metric('levada_outbox_rows{source="default"}', 0)
        self.wait_for_metric(f'levada_store_lag_records{{store="{alias}"}}', 0)

    def stop(self, number=signal.SIGTERM):
        """Send the signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
