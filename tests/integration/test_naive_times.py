"""Without USE_TZ Django keeps local times: the log, the snapshot and the replica agree on them."""

import pytest

from .projects import Project

SETTINGS = """
from tests.settings import *
USE_TZ = False
TIME_ZONE = "Asia/Kathmandu"
"""
WRITE = """
from datetime import datetime
from tests.shop.models import Customer, Everything
Everything.objects.create(moment=datetime(2026, 11, 21, 8, 30, 0, {n}))
Customer.objects.create(name="Ana", created_at=datetime(2026, 7, 1, 0, 15, {n}))
"""
READ = """
from tests.shop.models import Customer, Everything
for alias in ("default", "analytics"):
    for model, name in ((Everything, "moment"), (Customer, "created_at")):
        print(*model.objects.using(alias).order_by(name).values_list(name, flat=True))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "naive_settings.py").write_text(SETTINGS)
    monkeypatch.syspath_prepend(tmp_path)
    project = Project(tmp_path, settings="naive_settings")
    project.manage("migrate", "--verbosity", "0")
    yield project
    project.close()


def test_what_the_log_brought_and_what_a_rebuild_read_are_the_same_local_times(project):
    """On PostgreSQL the snapshot read such columns in UTC, the triggers in the project's zone."""
    project.python(WRITE.format(n=1))
    project.levada("rebuild", "analytics")
    project.python(WRITE.format(n=2))
    project.levada("verify", "analytics")

    moments = "2026-11-21 08:30:00.000001 2026-11-21 08:30:00.000002"
    created = "2026-07-01 00:15:01 2026-07-01 00:15:02"
    assert project.python(READ).splitlines() == [moments, created] * 2

    project.levada("rebuild", "analytics")
    assert project.python(READ).splitlines() == [moments, created] * 2
