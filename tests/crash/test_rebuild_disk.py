"""A rebuild in a process that may not let the store's file grow, as on a full disk."""

import pytest

from tests.integration.projects import Project

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

FILL = """
import uuid
from tests.shop.models import Customer
Customer.objects.bulk_create(
    Customer(name="".join(uuid.uuid4().hex for _ in range(3)), email=str(uuid.uuid4()))
    for _ in range(40_000)
)
"""
REBUILD_ON_A_FULL_DISK = """
import os, resource
from django.conf import settings
from levada.apply import rebuild
from levada.errors import StoreFull
from levada.log import open_log
from levada.outbox.sources import open_source
from levada.relay import Relay
from levada.stores import open_store

relay = Relay(open_source(), open_log())
path = settings.DATABASES["analytics"]["NAME"]
rebuild("analytics", pump=relay.step)
store = open_store("analytics")
before = store.position(), store.generation()
limit = os.path.getsize(path) + 500_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    rebuild("analytics", pump=relay.step)
except StoreFull as error:
    print("full:", error)
assert (store.position(), store.generation()) == before
assert store.shadows() == [], store.shadows()
print("rows:", store.connection.execute("SELECT count(*) FROM shop_customer").fetchall())
"""
VERIFY = """
from levada.apply import verify
found = verify("analytics")
assert found.equal, found.to_json()
print("equal")
"""


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    try:
        made.manage("migrate", "--verbosity", "0")
        yield made
    finally:
        made.close()


def test_a_rebuild_on_a_full_disk_leaves_the_store_as_it_was(project):
    project.python(FILL)
    said = project.python(REBUILD_ON_A_FULL_DISK)
    assert "full: No space is left" in said
    assert "rows: [(40000,)]" in said
    assert "equal" in project.python(VERIFY)
