"""PynamoDB against the HTTP API: models, conditions, updates, pages.

Each function named `test_…` is one test. The closing line is `N passed, M failed`.
"""

import sys

from pynamodb.attributes import MapAttribute, NumberAttribute, UnicodeAttribute, UnicodeSetAttribute
from pynamodb.exceptions import DoesNotExist, PutError, UpdateError
from pynamodb.models import Model

import harness

ENDPOINT = sys.argv[1]


class Cargo(MapAttribute):
    kind = UnicodeAttribute()
    tons = NumberAttribute()


class Voyage(Model):
    class Meta:
        table_name = "pynamodb-voyages"
        host = ENDPOINT
        region = "us-east-1"
        billing_mode = "PAY_PER_REQUEST"

    ship = UnicodeAttribute(hash_key=True)
    leg = NumberAttribute(range_key=True)
    cargo = Cargo(null=True)
    ports = UnicodeSetAttribute(null=True)
    days = NumberAttribute(default=0)


def test_a_model_makes_its_table_and_items_come_back():
    Voyage.create_table(wait=True)
    assert Voyage.exists()
    for leg in range(30):
        Voyage("Evenkeel", leg, cargo=Cargo(kind="tea", tons=leg), ports={"Hull", "Kiel"}, days=leg % 7).save()
    found = Voyage.get("Evenkeel", 12)
    assert (found.cargo.kind, found.cargo.tons, found.ports) == ("tea", 12, {"Hull", "Kiel"})
    try:
        Voyage.get("nobody", 1)
    except DoesNotExist:
        return
    raise AssertionError("an item that is not there was found")


def test_conditions_and_updates_are_those_of_the_model():
    voyage = Voyage.get("Evenkeel", 3)
    voyage.update(actions=[Voyage.days.add(4), Voyage.cargo.kind.set("tin"), Voyage.ports.delete({"Hull"})],
                  condition=(Voyage.cargo.tons == 3) & Voyage.ports.contains("Hull"))
    assert (voyage.days, voyage.cargo.kind, voyage.ports) == (7, "tin", {"Kiel"})
    for error, call in [
        (UpdateError, lambda: voyage.update(actions=[Voyage.days.set(1)], condition=Voyage.days > 100)),
        (PutError, lambda: Voyage("Evenkeel", 3).save(condition=Voyage.ship.does_not_exist())),
    ]:
        try:
            call()
        except error:
            continue
        raise AssertionError(f"{error} was expected")


def test_queries_scans_and_batches_page():
    legs = [v.leg for v in Voyage.query("Evenkeel", Voyage.leg.between(5, 9), scan_index_forward=False, page_size=2)]
    assert legs == [9, 8, 7, 6, 5], legs
    busy = sorted(v.leg for v in Voyage.query("Evenkeel", filter_condition=Voyage.days == 2))
    assert busy == [2, 9, 16, 23], busy
    assert sum(1 for _ in Voyage.scan(page_size=7)) == 30
    assert Voyage.count("Evenkeel", Voyage.leg < 10) == 10
    got = sorted(v.leg for v in Voyage.batch_get([("Evenkeel", leg) for leg in (1, 2, 99)]))
    assert got == [1, 2], got
    with Voyage.batch_write() as batch:
        for leg in range(20):
            batch.delete(Voyage("Evenkeel", leg))
    assert Voyage.count("Evenkeel") == 10
    Voyage.delete_table()


sys.exit(harness.run(globals()))
