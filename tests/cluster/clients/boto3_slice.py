"""boto3 against the HTTP API, with nothing set but endpoint_url.

Each function named `test_…` is one test; what boto3 itself checks (checksums, shapes, retries) is part of
it. The closing line is `N passed, M failed`; the exit code is 1 if any failed or none ran.
"""

import sys
import time
from decimal import Decimal

import boto3
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary
from botocore.exceptions import ClientError

import harness

ENDPOINT = sys.argv[1]
client = boto3.client("dynamodb", endpoint_url=ENDPOINT)
resource = boto3.resource("dynamodb", endpoint_url=ENDPOINT)


def create(name, *keys):
    """Creates a table with keys given as (name, type), waits for it, and yields the resource."""
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": of} for key, of in keys],
        KeySchema=[
            {"AttributeName": key, "KeyType": kind} for (key, _), kind in zip(keys, ("HASH", "RANGE"))
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    return resource.Table(name)


def refused(code, call, **arguments):
    """The message of the ClientError with this code that a call must raise."""
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, found
        assert error.response["ResponseMetadata"]["RequestId"], error.response
        assert error.response["ResponseMetadata"]["RetryAttempts"] == 0, error.response
        return found["Message"]
    raise AssertionError(f"{code} was expected")


def test_a_table_is_created_described_listed_and_deleted():
    table = create("life", ("pk", "S"), ("sk", "N"))
    assert table.table_status == "ACTIVE"
    assert table.key_schema == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]
    for name in ("aaa", "bbb", "ccc"):
        create(name, ("id", "S"))
    pages = client.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 2})
    names = [name for page in pages for name in page["TableNames"]]
    assert names == sorted(names) and {"aaa", "bbb", "ccc", "life"} <= set(names), names
    client.delete_table(TableName="aaa")
    client.get_waiter("table_not_exists").wait(TableName="aaa", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    create("aaa", ("id", "S"))
    refused("ResourceInUseException", client.create_table, TableName="aaa",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST")


def test_all_ten_types_come_back_through_client_and_resource():
    table = create("types", ("pk", "S"))
    item = {
        "pk": "all",
        "s": "Grüße \"\\\n😀",
        "s_empty": "",
        "n": Decimal("-1234567890123456789012345678901234567.8"),
        "n_least": Decimal("1E-130"),
        "b": Binary(bytes(range(256))),
        "yes": True,
        "no": False,
        "null": None,
        "m": {"empty": {}, "list": [[], None, {"deep": Decimal(1)}]},
        "l": ["a", Decimal(1), False],
        "ss": {"a", "ä"},
        "ns": {Decimal("-3.5"), Decimal(0), Decimal("1E+37")},
        "bs": {Binary(b"\x00"), Binary(b"\x00\x01")},
    }
    table.put_item(Item=item)
    found = table.get_item(Key={"pk": "all"}, ConsistentRead=True)["Item"]
    assert found == item, found
    typed = client.get_item(TableName="types", Key={"pk": {"S": "all"}})["Item"]
    assert typed["n"] == {"N": "-1234567890123456789012345678901234567.8"}, typed["n"]
    assert typed["b"] == {"B": bytes(range(256))}
    assert typed["null"] == {"NULL": True}
    assert sorted(typed["ss"]["SS"]) == ["a", "ä"]
    # The resource reads no number of more than 38 digits, and the service writes all of them out.
    typed["greatest"] = {"N": "9" * 38 + "0" * 88}
    client.put_item(TableName="types", Item=dict(typed, pk={"S": "copy"}))
    copy = client.get_item(TableName="types", Key={"pk": {"S": "copy"}})["Item"]
    assert {**copy, "pk": None} == {**typed, "pk": None}
    assert "Item" not in table.get_item(Key={"pk": "nobody"})


def test_old_values_are_returned_where_asked_for():
    table = create("old", ("pk", "S"))
    assert "Attributes" not in table.put_item(Item={"pk": "a", "v": 1}, ReturnValues="ALL_OLD")
    old = table.put_item(Item={"pk": "a", "v": 2}, ReturnValues="ALL_OLD")["Attributes"]
    assert old == {"pk": "a", "v": Decimal(1)}, old
    old = table.delete_item(Key={"pk": "a"}, ReturnValues="ALL_OLD")["Attributes"]
    assert old == {"pk": "a", "v": Decimal(2)}, old
    assert "Item" not in table.get_item(Key={"pk": "a"})


def test_queries_run_both_ways_with_conditions_limits_and_pages():
    table = create("queried", ("pk", "S"), ("sk", "N"))
    with table.batch_writer() as batch:
        for n in range(120):
            batch.put_item(Item={"pk": "p", "sk": Decimal(n) / 4 - 10, "n": n})
            batch.put_item(Item={"pk": "q", "sk": n})

    def numbers(**arguments):
        return [int(item["n"]) for item in table.query(**arguments)["Items"]]

    partition = Key("pk").eq("p")
    assert numbers(KeyConditionExpression=partition) == list(range(120))
    assert numbers(KeyConditionExpression=partition, ScanIndexForward=False) == list(range(119, -1, -1))
    assert numbers(KeyConditionExpression=partition, Limit=5) == list(range(5))
    assert numbers(KeyConditionExpression=partition & Key("sk").eq(0)) == [40]
    assert numbers(KeyConditionExpression=partition & Key("sk").lt(-9)) == [0, 1, 2, 3]
    assert numbers(KeyConditionExpression=partition & Key("sk").gte(Decimal("19.5"))) == [118, 119]
    between = partition & Key("sk").between(Decimal("-0.5"), Decimal("0.5"))
    assert numbers(KeyConditionExpression=between) == [38, 39, 40, 41, 42]
    pages = list(client.get_paginator("query").paginate(
        TableName="queried", KeyConditionExpression="pk = :p", ScanIndexForward=False,
        ExpressionAttributeValues={":p": {"S": "p"}}, PaginationConfig={"PageSize": 50}))
    found = [int(item["n"]["N"]) for page in pages for item in page["Items"]]
    assert len(pages) == 3 and found == list(range(119, -1, -1)), (len(pages), found)


def test_string_sort_keys_are_found_by_prefix():
    table = create("prefixed", ("pk", "S"), ("sk", "S"))
    for sort in ("a", "ab", "abc", "abd", "ac", "b"):
        table.put_item(Item={"pk": "p", "sk": sort})
    found = table.query(KeyConditionExpression=Key("pk").eq("p") & Key("sk").begins_with("ab"))
    assert [item["sk"] for item in found["Items"]] == ["ab", "abc", "abd"] and found["Count"] == 3


def test_scans_see_every_item_once_over_all_pages():
    table = create("scanned", ("pk", "S"))
    with table.batch_writer() as batch:
        for n in range(90):
            batch.put_item(Item={"pk": f"p{n}", "large": "x" * 30_000})
    pages = list(client.get_paginator("scan").paginate(TableName="scanned"))
    keys = [item["pk"]["S"] for page in pages for item in page["Items"]]
    assert len(pages) >= 3 and sorted(keys) == sorted(f"p{n}" for n in range(90)), len(pages)
    pages = client.get_paginator("scan").paginate(TableName="scanned", Select="COUNT",
                                                  PaginationConfig={"PageSize": 7})
    assert sum(page["Count"] for page in pages) == 90
    with table.batch_writer() as batch:
        for n in range(90):
            batch.delete_item(Key={"pk": f"p{n}"})
    assert table.scan()["Count"] == 0


def test_updates_conditions_filters_and_batches_by_the_builders_of_boto3():
    table = create("built", ("pk", "S"), ("sk", "N"))
    for n in range(10):
        table.put_item(Item={"pk": "a", "sk": n, "status": "even" if n % 2 == 0 else "odd", "tags": {"x", "y"}})
    refused("ConditionalCheckFailedException", table.put_item, Item={"pk": "a", "sk": 1},
            ConditionExpression=Attr("pk").not_exists())
    updated = table.update_item(
        Key={"pk": "a", "sk": 1}, UpdateExpression="SET #s = :s, hits = if_not_exists(hits, :zero) + :one DELETE tags :x",
        ConditionExpression=Attr("status").eq("odd") & Attr("tags").contains("x"),
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":s": "done", ":zero": 0, ":one": 1, ":x": {"x"}}, ReturnValues="UPDATED_NEW")
    assert updated["Attributes"] == {"status": "done", "hits": 1, "tags": {"y"}}, updated
    found = table.query(KeyConditionExpression=Key("pk").eq("a") & Key("sk").lt(6),
                        FilterExpression=Attr("status").eq("odd"), ProjectionExpression="sk")
    assert [item["sk"] for item in found["Items"]] == [3, 5] and found["ScannedCount"] == 6, found
    scanned = table.scan(FilterExpression=Attr("status").is_in(["done", "even"]), Select="COUNT")
    assert (scanned["Count"], scanned["ScannedCount"]) == (6, 10), scanned
    keys = [{"pk": "a", "sk": n} for n in range(20)]
    got = resource.batch_get_item(RequestItems={"built": {"Keys": keys}})["Responses"]["built"]
    assert sorted(int(item["sk"]) for item in got) == list(range(10)), got


def test_errors_are_the_codes_and_texts_of_dynamodb():
    table = create("errors", ("pk", "S"), ("sk", "S"))
    message = refused("ResourceNotFoundException", client.get_item, TableName="nowhere", Key={"pk": {"S": "a"}})
    assert message == "Requested resource not found", message
    message = refused("ResourceNotFoundException", client.describe_table, TableName="nowhere")
    assert message == "Requested resource not found: Table: nowhere not found", message
    message = refused("ValidationException", table.put_item, Item={"pk": "a"})
    assert message == "One or more parameter values were invalid: Missing the key sk in the item", message
    message = refused("ValidationException", table.put_item, Item={"pk": 1, "sk": "b"})
    assert message == "One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N", message
    message = refused("ValidationException", table.get_item, Key={"pk": "a"})
    assert message == "The provided key element does not match the schema", message
    message = refused("ValidationException", table.put_item, Item={"pk": "a", "sk": "b", "v": "x" * 409_600})
    assert message == "Item size has exceeded the maximum allowed size", message
    try:
        client.describe_table(TableName="nowhere")
    except client.exceptions.ResourceNotFoundException:
        return
    raise AssertionError("the modelled exception was expected")


def test_a_hundred_small_requests_run_on_one_connection():
    # A segment held back by the sender, or a checksum that makes the client read again, shows here.
    table = create("fast", ("pk", "S"))
    table.put_item(Item={"pk": "a"})
    started = time.monotonic()
    for _ in range(100):
        table.get_item(Key={"pk": "a"})
    seconds = time.monotonic() - started
    print(f"    100 gets in {seconds:.3f} s")


sys.exit(harness.run(globals()))
