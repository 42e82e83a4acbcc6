"""The admin shows everything, lets nobody edit it, and asks for a right before a decision."""

from types import SimpleNamespace

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse

import levada
from levada.admin import RETRY_S
from levada.keeper.lending import unkept
from levada.keeper.locks import held
from levada.keeper.parts import lock_for
from levada.models import DeadLetter, Outbox, ReplicatedTable, VerifiedTable
from tests.shop.models import Product

pytestmark = pytest.mark.django_db

MODELS = (Outbox, DeadLetter, ReplicatedTable, VerifiedTable)


def user_with(*codenames):
    user = User.objects.create_user("person", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    assert user.user_permissions.count() == len(codenames)
    return user


@pytest.fixture
def as_user(client):
    def login(*codenames):
        client.force_login(user_with(*codenames))
        return client

    return login


@pytest.fixture
def letters():
    return [
        DeadLetter.objects.create(
            consumer="analytics",
            epoch="e",
            topic="changes",
            offset=offset,
            label="shop.Order",
            key=f"[{offset}]",
            record="{}",
            reason="too large",
        )
        for offset in (1, 2)
    ]


def listing(model):
    return reverse(f"admin:levada_{model._meta.model_name}_changelist")


@pytest.mark.parametrize("model", MODELS)
def test_who_may_view_sees_the_list_and_cannot_add(as_user, model):
    client = as_user(f"view_{model._meta.model_name}")
    assert client.get(listing(model)).status_code == 200
    add = reverse(f"admin:levada_{model._meta.model_name}_add")
    assert client.get(add).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_who_may_not_view_sees_nothing(as_user, model):
    assert as_user().get(listing(model)).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_even_a_superuser_cannot_edit_or_delete(admin_client, model, letters):
    from django.contrib import admin

    class Request:
        user = User.objects.get(username="admin")

    site = admin.site._registry[model]
    assert not site.has_add_permission(Request)
    assert not site.has_change_permission(Request)
    assert not site.has_delete_permission(Request)
    assert "delete_selected" not in admin_client.get(listing(model)).content.decode()


def act(client, action, letters):
    return client.post(
        listing(DeadLetter),
        {"action": action, "_selected_action": [letter.pk for letter in letters]},
        follow=True,
    )


@pytest.fixture
def decided(monkeypatch):
    """Stand in for the two decisions: what is tested here is who may take them, and on what."""
    import levada.apply
    import levada.keeper.lending

    calls = []

    def retry(pk, *, timeout_s):
        assert 0 <= timeout_s <= RETRY_S
        if pk in retry.fails:
            raise ValueError("still too large")
        calls.append(("retry", pk))

    retry.fails = set()
    stand_in = SimpleNamespace(retry=retry, drop=lambda pk: calls.append(("drop", pk)))
    monkeypatch.setattr(levada.apply, "dead_letters", stand_in, raising=False)
    monkeypatch.setattr(levada.keeper.lending, "unkept", lambda *parts: [])
    return calls, retry.fails


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_who_may_change_dead_letters_may_decide(as_user, letters, decided, action):
    client = as_user("view_deadletter", "change_deadletter")
    response = act(client, action, letters)
    assert decided[0] == [(action, letter.pk) for letter in letters]
    assert "2 " in response.content.decode()


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_who_may_only_view_cannot_decide(as_user, letters, decided, action):
    act(as_user("view_deadletter"), action, letters)
    assert decided[0] == []


def test_one_that_fails_again_is_named_and_does_not_stop_the_others(as_user, letters, decided):
    decided[1].add(letters[0].pk)
    response = act(as_user("view_deadletter", "change_deadletter"), "retry", letters)
    assert decided[0] == [("retry", letters[1].pk)]
    assert "still too large" in response.content.decode()


def test_a_retry_that_no_keeper_could_help_is_not_begun(as_user, letters):
    """It used to hold a web worker for 30 s a letter."""
    assert unkept("relay", "apply:analytics") == ["relay", "apply:analytics"]
    response = act(as_user("view_deadletter", "change_deadletter"), "retry", letters)
    said = response.content.decode()
    for letter in letters:
        assert f"manage.py levada dead-letters retry {letter.pk}" in said
    assert set(DeadLetter.objects.values_list("state", "tries")) == {("waiting", 1)}


@pytest.mark.django_db(transaction=True, databases=["default", "analytics"])
def test_a_retry_ends_when_the_store_does_not_catch_up(as_user, levada_drain, monkeypatch):
    """A keeper that runs and does not come on must not hold the web worker either."""
    monkeypatch.setattr(levada.admin, "RETRY_S", 0.2)
    product = Product.objects.create(name="cork")
    levada_drain()
    letter = DeadLetter.objects.create(
        consumer="analytics",
        epoch="e",
        topic="changes",
        offset=1,
        label="shop.Product",
        key=f"[{product.pk}]",
        record="{}",
        reason="too large",
    )
    Product.objects.create(name="waits in the outbox")
    with held(lock_for("relay")), held(lock_for("apply:analytics")):
        assert unkept("relay", "apply:analytics") == []
        client = as_user("view_deadletter", "change_deadletter")
        said = act(client, "retry", [letter]).content.decode()
        assert "analytics did not catch up with the source in time" in said
        letter.refresh_from_db()
        assert letter.state == "waiting"

        levada_drain()
        said = act(client, "retry", [letter]).content.decode()
    assert "1 retried." in said
    letter.refresh_from_db()
    assert letter.state == "retried"


def test_what_was_decided_is_not_decided_again(as_user, letters, decided):
    DeadLetter.objects.update(state=DeadLetter.State.DROPPED)
    response = act(as_user("view_deadletter", "change_deadletter"), "retry", letters)
    assert decided[0] == []
    assert "None of them waits" in response.content.decode()


def test_a_decision_is_written_into_the_admins_history(as_user, letters, decided):
    from django.contrib.admin.models import LogEntry

    act(as_user("view_deadletter", "change_deadletter"), "drop", letters[:1])
    assert LogEntry.objects.get().get_change_message() == "dropped"


@pytest.fixture
def status(monkeypatch):
    from levada.keeper import status as module
    from tests.unit.test_keeper_exposition import status as made

    monkeypatch.setattr(module, "read_status", made)


def test_the_status_page_shows_lag_rows_and_verification(as_user, status):
    page = as_user("view_replicatedtable").get(reverse("admin:levada_status"))
    text = page.content.decode()
    assert page.status_code == 200
    for figure in ("analytics", "8 records, 1.5 s", "verified", "shop.Order", "/srv/log.sqlite3"):
        assert figure in text


def test_the_status_page_is_not_for_everybody(as_user, status):
    assert as_user("view_deadletter").get(reverse("admin:levada_status")).status_code == 403


def test_the_status_page_asks_for_a_login(client, status):
    assert client.get(reverse("admin:levada_status")).status_code == 302


def test_the_index_leads_to_the_status_page_for_who_may_see_it(as_user):
    index = reverse("admin:app_list", args=["levada"])
    link = reverse("admin:levada_status")
    client = as_user("view_replicatedtable")
    assert link in client.get(index).content.decode()
    assert link in client.get(listing(ReplicatedTable)).content.decode()


def test_the_index_does_not_lead_others_there(as_user):
    index = as_user("view_deadletter").get(reverse("admin:app_list", args=["levada"]))
    assert reverse("admin:levada_status") not in index.content.decode()


def test_text_that_came_from_users_is_escaped(as_user, letters):
    DeadLetter.objects.filter(pk=letters[0].pk).update(reason="<script>alert(1)</script>")
    page = as_user("view_deadletter").get(listing(DeadLetter)).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
