"""
The page, and the four things it asks for.

Each answers JSON to the page's script and the whole page to a plain form, so
everything but the live numbers works without scripts.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import IntegrityError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from levada.errors import LevadaError

from . import race as racing
from .contests import CONTESTS
from .forms import EventForm, blank_form
from .journey import send
from .pulse import pulse
from .stores import read_now, to_json
from .stream import stream
from .works import Busy, works

WORKS = ("delete", "rebuild", "verify")


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Show the channel as it is now."""
    return show(request)


@require_POST
def write_event(request: HttpRequest) -> HttpResponse:
    """Commit one event, follow it into the replica, and say how long it took."""
    form = EventForm(request.POST)
    if not form.is_valid():
        return refused(request, form)
    try:
        journey = send(form.event())
    except IntegrityError:  # somebody else wrote the same event since the form was checked
        form.add_error(None, "This event exists already.")
        return refused(request, form)
    except LevadaError as error:
        return failed(request, error, status=503)
    told = journey.to_json()
    stream.publish("journey", told)
    return JsonResponse(told, status=201) if wants_json(request) else show(request, journey=told)


@require_POST
def race(request: HttpRequest, slug: str) -> HttpResponse:
    """Run one contest."""
    if slug not in CONTESTS:
        raise Http404(f"There is no contest {slug!r}.")
    try:
        result = racing.run(CONTESTS[slug]).to_json()
    except LevadaError as error:
        return failed(request, error, status=503)
    return JsonResponse(result) if wants_json(request) else show(request, results={slug: result})


@require_POST
def work(request: HttpRequest, work: str) -> HttpResponse:
    """Set one of WORKS going; only in demo mode, elsewhere there is no such page."""
    if not in_demo() or work not in WORKS:
        raise Http404("This is possible in the demo alone.")
    try:
        getattr(works, work)()
    except Busy:
        if wants_json(request):
            return JsonResponse({"error": "Something else is not done yet."}, status=409)
        return show(request, error="Something else is not done yet.", status=409)
    if wants_json(request):
        return JsonResponse({"started": work}, status=202)
    works.wait()  # no script, so nobody would see the progress
    return redirect("channel:page")


@never_cache
async def live(request: HttpRequest) -> StreamingHttpResponse:
    """Stream what happens as server-sent events."""
    pulse.start()
    response = StreamingHttpResponse(
        stream.read(request.headers.get("Last-Event-ID", "")),
        content_type="text/event-stream",
    )
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
    return response


def show(request: HttpRequest, *, status: int = 200, **extra: Any) -> HttpResponse:
    """Render the page with the numbers of now; `extra` replaces parts of the context."""
    results = extra.pop("results", {})
    context = {
        "demo": in_demo(),
        "form": blank_form(),
        "contests": [(each, results.get(each.slug)) for each in CONTESTS.values()],
        "state": to_json(read_now(), works.proof),
        "work": works.work.to_json() if works.work else None,
        **extra,
    }
    return render(request, "channel/page.html", context, status=status)


def in_demo() -> bool:
    """Say whether the page may delete what it shows."""
    return bool(getattr(settings, "DEMO", False))


def refused(request: HttpRequest, form: EventForm) -> HttpResponse:
    """Say what is wrong with the form."""
    if wants_json(request):
        return JsonResponse({"errors": form.errors.get_json_data()}, status=422)
    return show(request, status=422, form=form)


def failed(request: HttpRequest, error: LevadaError, *, status: int) -> HttpResponse:
    """Say what Levada said."""
    if wants_json(request):
        return JsonResponse({"error": str(error)}, status=status)
    return show(request, status=status, error=str(error))


def wants_json(request: HttpRequest) -> bool:
    """Say whether the page's script asks, rather than a plain form."""
    return request.headers.get("Accept", "") == "application/json"
