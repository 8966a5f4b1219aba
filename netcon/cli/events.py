"""`netcon events`: what happens to the node of a running service."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from netcon.cli.common import client, home_option


@click.command(short_help="Show what happens to this node.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what happens, until interrupted.")
@click.option("--dropped", is_flag=True, help="Show, too, which frames are dropped, and why.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in each line.")
@home_option
def events(follow: bool, dropped: bool, as_json: bool) -> None:
    """Show the latest events: going online and offline, direct paths, messages of other nodes, and the traces that members send to
    this node because their controller says so."""
    since, suffix = 1, "&trace=1" if dropped else ""
    with client() as api:
        while True:
            found = api.get(f"/netcon/events?since={since}&wait={20 if follow and since > 1 else 0}{suffix}")
            if found["lost"] and since > 1:
                click.echo(f"({found['lost']} events were too fast for us)", err=True)
            for event in found["events"]:
                click.echo(json.dumps(event, sort_keys=True) if as_json else _line(event))
            if not follow:
                return
            since = max(found["next"], 2)


def _line(event: dict[str, Any]) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(event["time"] / 1000))
    words = [f"{when}.{event['time'] % 1000:03d}", event["event"]]
    if int(event["peer"], 16):
        words.append(event["peer"])
    if "type" in event:
        words.append(f"type {event['type']}")
    if "data" in event:
        words.append(event["data"])
    words += [f"{key}={value}" for key, value in event.get("fields", {}).items() if key != "event"]
    if "event" in event.get("fields", {}):
        words.insert(2, event["fields"]["event"])
    return " ".join(words)
