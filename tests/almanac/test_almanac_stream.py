"""The stream of server-sent events: every page hears everything, nobody waits for a slow one."""

import asyncio
import json
import threading

import pytest

from almanac.channel import stream as streaming
from almanac.channel.stream import Stream


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def decode(encoded):
    lines = dict(line.split(": ", 1) for line in encoded.decode().strip().splitlines())
    return lines["id"], lines["event"], json.loads(lines["data"])


async def take(reader, count):
    """Read past the retry line, then `count` messages."""
    found = []
    async for encoded in reader:
        if encoded.startswith(b"id:"):
            found.append(decode(encoded))
        if len(found) == count:
            return found
    return found


async def begin(reader):
    """Enter the stream: an asynchronous generator runs nothing before it is asked."""
    assert (await anext(reader)).startswith(b"retry:")


def test_every_reader_gets_every_message_from_any_thread():
    async def scenario():
        stream = Stream()
        readers = [stream.read(), stream.read()]
        for reader in readers:
            await begin(reader)
        thread = threading.Thread(
            target=lambda: [stream.publish("journey", {"id": n}) for n in range(3)]
        )
        thread.start()
        heard = [await take(reader, 3) for reader in readers]
        thread.join()
        return heard

    one, other = run(scenario())
    assert one == other
    assert [data["id"] for _, _, data in one] == [0, 1, 2]


def test_a_page_that_comes_back_gets_what_it_missed():
    async def scenario():
        stream = Stream()
        for number in range(5):
            stream.publish("journey", {"id": number})
        return await take(stream.read(f"{stream.name}-2"), 3)

    assert [data["id"] for _, _, data in run(scenario())] == [2, 3, 4]


def test_a_new_page_begins_with_the_latest_states_alone():
    async def scenario():
        stream = Stream()
        stream.publish("stores", {"rows": 1})
        stream.publish("journey", {"id": 7})
        stream.publish("stores", {"rows": 2})
        return await take(stream.read(), 1)

    assert [(event, data) for _, event, data in run(scenario())] == [("stores", {"rows": 2})]


def test_the_number_of_another_process_is_no_number_of_ours():
    async def scenario():
        stream = Stream()
        stream.publish("journey", {"id": 1})
        stream.publish("stores", {"rows": 1})
        return await take(stream.read("0badcafe-1"), 1)

    assert [event for _, event, _ in run(scenario())] == ["stores"]


def test_a_page_that_does_not_read_is_let_go_and_others_go_on(monkeypatch):
    monkeypatch.setattr(streaming, "WAITING_MESSAGES", 4)

    async def scenario():
        stream = Stream()
        slow = stream.read()
        await begin(slow)
        for number in range(10):
            stream.publish("journey", {"id": number})
        await asyncio.sleep(0)  # the loop hands the messages to the queue
        heard = [each async for each in slow]
        stream.publish("journey", {"id": 10})
        return stream, heard

    stream, heard = run(scenario())
    assert len(heard) < 10
    assert not stream.has_readers.is_set()


def test_closing_ends_every_reader_and_lets_none_in():
    async def scenario():
        stream = Stream()
        reader = stream.read()
        await begin(reader)
        stream.close()
        return await take(reader, 1), await take(stream.read(), 1)

    assert run(scenario()) == ([], [])


def test_readers_are_counted_while_they_read():
    async def scenario():
        stream = Stream()
        reader = stream.read()
        assert not stream.has_readers.is_set()
        await begin(reader)
        assert stream.has_readers.is_set()
        await reader.aclose()
        return stream.has_readers.is_set()

    assert run(scenario()) is False


@pytest.mark.parametrize("last", ["", "nonsense", "a-b-c", "-", "deadbeef-"])
def test_a_last_event_id_that_makes_no_sense_is_a_new_page(last):
    async def scenario():
        stream = Stream()
        stream.publish("work", {"stage": "x"})
        return await take(stream.read(last), 1)

    assert [event for _, event, _ in run(scenario())] == ["work"]
