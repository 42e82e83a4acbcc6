"""The steps of the demo, from an empty folder to a page that is served."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from levada.errors import LevadaError

from . import folder
from .bar import Bar
from .serving import PortTaken, address, answers, bind, open_browser, serve
from .table import table

if TYPE_CHECKING:
    from almanac.channel.journey import Journey
    from almanac.channel.works import Proof

CATCH_UP_S = 300.0


def run(options: argparse.Namespace) -> int:
    """Do it all; return 0 if everything is verified, 1 if not, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ✓ still shows the rest
    try:
        with folder.own(options.data), bind(options.port) as listener:
            load_project(options.data)
            return show(options, listener)
    except (PortTaken, LevadaError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run it again to go on.")
        return 130


def show(options: argparse.Namespace, listener: socket.socket) -> int:
    """Fill the project, prove its replica, and serve it or, for a check, ask for it once."""
    from almanac.channel import keeping

    began = perf_counter()
    print(f"Levada's demo, in {options.data.resolve()}\n", flush=True)
    create_databases()
    load_synthetic(options.rows)
    build_replica()
    with keeping.kept():
        import_histories()
        journey = write_event() if options.check else None
        proof = prove()
        print_stores(proof)
        if options.check:
            return check(listener, proof, journey)
        serve(listener, lambda: announce(options, address(listener), perf_counter() - began))
    print("\nStopped. Run it again to go on with the same data.")
    return 0


def announce(options: argparse.Namespace, url: str, took_s: float) -> None:
    """Say where the page is, and open it unless that is not wanted."""
    print(f"\nReady in {took_s:.0f} s. The channel: {url}\nCtrl-C stops all of it.", flush=True)
    if not options.no_browser:
        open_browser(url)


def load_project(data: Path) -> None:
    """Make the reference project the Django project of this process."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "almanac.config.settings"
    os.environ["ALMANAC_DATA"] = str(data.resolve())
    os.environ["ALMANAC_DEMO"] = "1"
    import django

    django.setup()


def create_databases() -> None:
    """Migrate the source database; the replica's tables are the applier's."""
    from django.core.management import call_command

    with Bar("Migrating"):
        call_command("migrate", verbosity=0, interactive=False)


def load_synthetic(rows: int) -> None:
    """
    Bring the synthetic events up to `rows`, with the triggers off.

    What stands before a replica is built need not travel as changes: the
    rebuild reads it from a snapshot. A replica that is there already would
    miss these rows, so it is deleted first, and an interrupted load leaves
    none that looks whole. The next migrate would bring the triggers back.
    """
    from almanac.calendar_events.models import EconomicEvent
    from almanac.calendar_events.synthetic import SOURCE, add_synthetic_events
    from levada.capture import install, uninstall
    from levada.stores.duckdb import ownership

    standing = EconomicEvent.objects.filter(source=SOURCE).count()
    if standing >= rows:
        if standing:
            print(f"  {standing:,} synthetic events are there already")
        return
    ownership.delete_file("analytics")
    uninstall("default")
    with Bar("Loading synthetic events", rows) as bar:
        added = add_synthetic_events(rows, progress=bar.to)
        bar.note = f"{added:,} rows"
    install("default")


def build_replica() -> None:
    """Build the replica from a snapshot where there is none."""
    from almanac.channel.stores import has_replica
    from levada.apply import rebuild

    if not has_replica():
        with Bar("Building the replica") as bar:
            rebuild("analytics", progress=lambda label, done, total: bar.to(done, total))
            bar.note = f"{bar.total:,} rows"


def import_histories() -> None:
    """Write the real releases while the keeper runs, and wait until the replica has them."""
    import levada
    from almanac.calendar_events.histories import HISTORIES, events
    from almanac.calendar_events.importer import import_events

    real = [event for history in HISTORIES for event in events(history)]
    with Bar("Sending real releases down the channel", len(real)) as bar:
        imported = import_events(real, progress=bar.to)
        levada.wait_for("analytics", levada.position(), timeout_s=CATCH_UP_S)
        bar.note = f"{imported.new:,} new of {imported.total:,}"


def write_event() -> Journey:
    """Write one event as the page's form does."""
    from django.utils import timezone

    from almanac.calendar_events.models import EconomicEvent
    from almanac.channel.journey import send

    now = timezone.now()
    event = EconomicEvent(
        date=now.date(), time=now.time(), event_name="Demo Check", country="PT", source="check"
    )
    with Bar("Writing an event") as bar:
        journey = send(event)
        bar.note = str(journey.to_json()["way"])
    return journey


def prove() -> Proof:
    """Compare source and replica row by row."""
    from almanac.channel.works import works

    with Bar("Comparing every row") as bar:
        proof = works.prove(lambda label, done, total: bar.to(done, total))
        bar.note = f"{proof.rows:,} rows"
    return proof


def print_stores(proof: Proof) -> None:
    """Print both stores with rows, size, lag and proof."""
    from almanac.channel.stores import read_now, to_json

    state = to_json(read_now(), proof)
    texts, engines = state["texts"], state["engines"]
    source = ("default", engines["default"], texts["source_rows"], texts["source_size"], "", "")
    replica = (
        "analytics",
        engines["analytics"],
        texts["replica_rows"],
        texts["replica_size"],
        texts["replica_lag"],
        texts["proof"],
    )
    print(f"\n{table([source, replica])}", flush=True)


def check(listener: socket.socket, proof: Proof, journey: Journey | None) -> int:
    """Ask for the page once; return 0 if it answers, the event arrived and all is verified."""
    with Bar("Asking for the page"):
        served = answers(listener)
    findings = {
        "the replica is not equal: " + proof.words: proof.equal,
        "the event that was written differs in the replica": journey is None or journey.same,
        "the page did not answer": served,
    }
    wrong = [finding for finding, fine in findings.items() if not fine]
    for finding in wrong:
        print(f"NOT VERIFIED: {finding}", file=sys.stderr)
    return 1 if wrong else 0
