"""Random requests to two endpoints of the DynamoDB API, whose answers must be the same.

    compare.py OURS ORACLE [--seeds A..B] [--requests N]

Each seed is a run of its own on tables of its own; requests are valid, or made invalid in one place. What is
compared: the status, an error's type and text, and the answer, in which sets and scanned items have no order.
A difference that is known is listed in KNOWN with the reason that docs/differences-from-dynamodb.md gives.
The closing line is `N passed, M failed`, counted in requests.
"""

import argparse
import collections
import copy
import http.client
import json
import random
import re
import sys

# (what our answer matches, what the oracle's matches, what the request matches): each is explained, by its number, in
# docs/differences-from-dynamodb.md, "Where the oracle differs".
KNOWN = [
    (r"Two document paths conflict with each other", r""),  # 1
    (r"operator(?: or function)?: (?:<|<=|>|>=|BETWEEN|attribute_type), operand type", r""),  # 2
    (r"Invalid attribute type name found", r""),  # 2
    (r"The BETWEEN operator requires", r""),  # 3
    (r"Syntax error; token|reserved keyword", r"Expected |Unexpected token|Syntax error; token|Attribute name"),  # 4
    (r"Invalid \w+Expression: An expression attribute", r'"message": "(?:An expression attribute|Expected )'),  # 4
    (r"Unrecognized collection type|cannot be converted to|Start of structure|Unexpected (?:field|token|value)", r"SerializationException|Unrecognized collection type|missing field|Unexpected"),  # 5
    (r"invalid base64", r"invalid base64"),  # 5
    (r"Value null at 'requestItems'", r"missing field"),  # 5
    (r'"answer": (?!.*"Attributes")', r'"Attributes": \{(?:"(?:pk|sk)": \{[^}]*\}(?:, )?)+\}', r'"ALL_OLD"'),  # 6
    (r"contains duplicates|may not be empty", r"contains duplicates|may not be empty"),  # 7
    (r"unused in expressions", r'The conditional request failed|"status": 200', r"^(?!.*UpdateExpression)"),  # 8
    (r'"Attributes"', r'"Attributes"', r'(?=.*UPDATED_)(?=.*"UpdateExpression": "[^"]*\[)'),  # 9
    (r"An expression attribute|Syntax error", r"Invalid \w+Expression: (?:Incorrect|An expression attribute)"),  # 10
    (r"Incorrect number of operands|Syntax error", r"Incorrect number of operands|Syntax error"),  # 10
    (r"unused in expressions|overlap with each other", r"missed key schema element|ResourceNotFound"),  # 10
    (r"operator or function: begins_with, operand type", r"The BETWEEN operator requires"),  # 10
    (r"ReturnValues can only be", r"The BETWEEN operator requires"),  # 10
    (r"Invalid UpdateExpression", r"Invalid ConditionExpression"),  # 10
    (r"Invalid \w+Expression: Incorrect operand", r"unused in expressions"),  # 10
    (r"refers to an attribute that does not exist", r"has an incorrect data type"),  # 10
    (r"at 'returnConsumedCapacity'", r"at 'returnConsumedCapacity'"),  # 7
]

HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Date": "20260101T000000Z",
    "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b",
}


class Endpoint:
    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=60)

    def call(self, operation, body):
        headers = dict(HEADERS, **{"X-Amz-Target": f"DynamoDB_20120810.{operation}"})
        self.connection.request("POST", "/", json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


def canonical(value, unordered=False):
    """The answer with numbers in one notation and sets in one order."""
    if isinstance(value, dict):
        if set(value) in ({"SS"}, {"NS"}, {"BS"}):
            return {kind: sorted(members) for kind, members in value.items()}
        return {name: canonical(member) for name, member in value.items()}
    if isinstance(value, list):
        members = [canonical(member) for member in value]
        return sorted(members, key=json.dumps) if unordered else members
    return value


def outcome(operation, status, answer):
    """What is compared of an answer."""
    if status != 200:
        kind = (answer or {}).get("__type", "").rsplit("#", 1)[-1]
        message = (answer or {}).get("message", (answer or {}).get("Message"))
        item = canonical((answer or {}).get("Item"))
        return {"status": status, "type": kind, "message": message, "item": item}
    answer = canonical(answer)
    if operation == "Scan":
        answer["Items"] = sorted(answer.get("Items", []), key=lambda item: json.dumps(item, sort_keys=True))
    if operation == "BatchGetItem":
        answer["Responses"] = {
            table: sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
            for table, items in answer["Responses"].items()
        }
        answer.get("ConsumedCapacity", []).sort(key=json.dumps)
    return {"status": status, "answer": answer}


class Generator:
    """Requests about a few tables with a small vocabulary, so that they meet."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tables = {
            f"hash-{seed}": [("pk", "S")],
            f"range-{seed}": [("pk", "S"), ("sk", "N")],
            f"binary-{seed}": [("pk", "B"), ("sk", "S")],
        }

    def create(self):
        for name, keys in self.tables.items():
            yield {
                "TableName": name,
                "KeySchema": [{"AttributeName": key, "KeyType": kind} for (key, _), kind in zip(keys, ["HASH", "RANGE"])],
                "AttributeDefinitions": [{"AttributeName": key, "AttributeType": of} for key, of in keys],
                "BillingMode": "PAY_PER_REQUEST",
            }

    def pick(self, choices):
        return self.random.choice(choices)

    def chance(self, probability):
        return self.random.random() < probability

    def scalar(self, kind):
        if kind == "S":
            return {"S": self.pick(["a", "b", "hello", "hell", "A", "ü"])}
        if kind == "N":
            return {"N": self.pick(["0", "1", "-1", "2.5", "10", "1e2", "007", "99999999999999999999999999999999999999"])}
        return {"B": self.pick(["AQ==", "AQI=", "AQID"])}

    def value(self, depth=0):
        kinds = ["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS"] + (["M", "L"] * 2 if depth < 2 else [])
        kind = self.pick(kinds)
        if kind in ("S", "N", "B"):
            return self.scalar(kind)
        if kind == "BOOL":
            return {"BOOL": self.chance(0.5)}
        if kind == "NULL":
            return {"NULL": True}
        if kind == "SS":
            return {"SS": self.random.sample(["a", "b", "c"], self.random.randint(1, 3))}
        if kind == "NS":
            return {"NS": self.random.sample(["1", "2", "3.5"], self.random.randint(1, 3))}
        if kind == "BS":
            return {"BS": self.random.sample(["AQ==", "AQI="], self.random.randint(1, 2))}
        if kind == "L":
            return {"L": [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]}
        return {"M": {name: self.value(depth + 1) for name in self.random.sample(["x", "y", "z"], self.random.randint(0, 3))}}

    def key(self, table):
        return {name: self.scalar(kind) for name, kind in self.tables[table]}

    def item(self, table):
        item = {name: self.value() for name in self.random.sample(["n", "s", "l", "m", "ss", "v"], self.random.randint(0, 5))}
        item.update(self.key(table))
        return item

    def path(self):
        root = self.pick(["n", "s", "l", "m", "ss", "v", "gone", "#n", "#odd"])
        tail = self.pick(["", "", "", ".x", ".y", "[0]", "[1]", ".x[0]", "[1].y", ".#n"])
        return root + tail

    def operand(self, values):
        if self.chance(0.5):
            return self.path()
        if self.chance(0.15):
            return f"size({self.path()})"
        return self.placeholder(values)

    def placeholder(self, values):
        name = f":v{len(values)}"
        values[name] = self.value(1) if self.chance(0.4) else self.scalar(self.pick(["S", "N", "N", "B"]))
        return name

    def condition(self, values, depth=0):
        form = self.random.randrange(9 if depth < 3 else 6)
        if form == 0:
            return f"{self.operand(values)} {self.pick(['=', '<>', '<', '<=', '>', '>='])} {self.operand(values)}"
        if form == 1:
            return f"{self.path()} BETWEEN {self.operand(values)} AND {self.operand(values)}"
        if form == 2:
            return f"{self.path()} IN ({', '.join(self.operand(values) for _ in range(self.random.randint(1, 3)))})"
        if form == 3:
            return f"{self.pick(['attribute_exists', 'attribute_not_exists'])}({self.path()})"
        if form == 4:
            return f"{self.pick(['begins_with', 'contains'])}({self.path()}, {self.operand(values)})"
        if form == 5:
            name = f":v{len(values)}"
            values[name] = {"S": self.pick(["S", "N", "M", "SS", "NULL", "X"])}
            return f"attribute_type({self.path()}, {name})"
        if form == 6:
            return f"NOT {self.condition(values, depth + 1)}"
        left, right = self.condition(values, depth + 1), self.condition(values, depth + 1)
        both = f"{left} {self.pick(['AND', 'OR', 'and', 'or'])} {right}"
        return f"({both})" if self.chance(0.5) else both

    def update(self, values):
        sections = []
        for section in self.random.sample(["SET", "REMOVE", "ADD", "DELETE"], self.random.randint(1, 3)):
            actions = []
            for _ in range(self.random.randint(1, 3)):
                path = self.path()
                if section == "SET":
                    actions.append(f"{path} = {self.set_value(values)}")
                elif section == "REMOVE":
                    actions.append(path)
                else:
                    actions.append(f"{path} {self.placeholder(values)}")
            sections.append(f"{section} {', '.join(actions)}")
        return " ".join(sections)

    def set_value(self, values, depth=0):
        form = self.random.randrange(6 if depth < 2 else 2)
        if form == 0:
            return self.path()
        if form == 1:
            return self.placeholder(values)
        if form == 2:
            return f"if_not_exists({self.path()}, {self.set_value(values, 2)})"
        if form == 3:
            return f"list_append({self.set_value(values, 2)}, {self.set_value(values, 2)})"
        return f"{self.set_value(values, 2)} {self.pick(['+', '-'])} {self.set_value(values, 2)}"

    def names(self, request):
        text = " ".join(value for name, value in request.items() if name.endswith("Expression"))
        names = {}
        if "#n" in text:
            names["#n"] = self.pick(["n", "x", "name"])
        if "#odd" in text:
            names["#odd"] = "a.b"
        if names:
            request["ExpressionAttributeNames"] = names

    def finish(self, request, values):
        self.names(request)
        if values:
            request["ExpressionAttributeValues"] = values
        if self.chance(0.2):
            request["ReturnConsumedCapacity"] = self.pick(["TOTAL", "INDEXES", "NONE"])
        return request

    def request(self):
        table = self.pick(list(self.tables))
        operation = self.pick(["PutItem"] * 3 + ["UpdateItem"] * 4 + ["DeleteItem", "GetItem", "Query", "Query", "Scan", "BatchGetItem", "BatchWriteItem"])
        request, values = {"TableName": table}, {}
        if operation == "PutItem":
            request["Item"] = self.item(table)
        elif operation in ("UpdateItem", "DeleteItem", "GetItem"):
            request["Key"] = self.key(table)
        if operation in ("PutItem", "DeleteItem") and self.chance(0.4):
            request["ReturnValues"] = "ALL_OLD"
        if operation == "UpdateItem":
            if self.chance(0.95):
                request["UpdateExpression"] = self.update(values)
            if self.chance(0.6):
                request["ReturnValues"] = self.pick(["ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW", "NONE"])
        if operation in ("PutItem", "DeleteItem", "UpdateItem") and self.chance(0.35):
            request["ConditionExpression"] = self.condition(values)
            if self.chance(0.3):
                request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        if operation in ("Query", "Scan") and self.chance(0.5):
            request["FilterExpression"] = self.condition(values)
        if operation in ("GetItem", "Query", "Scan") and self.chance(0.3):
            request["ProjectionExpression"] = ", ".join(self.path() for _ in range(self.random.randint(1, 3)))
        if operation == "Query":
            self.key_condition(table, request, values)
        if operation == "BatchGetItem":
            request = {"RequestItems": {table: {"Keys": [self.key(table) for _ in range(self.random.randint(1, 3))]}}}
        elif operation == "BatchWriteItem":
            writes = [self.batch_write(table) for _ in range(self.random.randint(1, 3))]
            request = {"RequestItems": {table: writes}}
        request = self.finish(request, values)
        if self.chance(0.15):
            request = self.spoil(request)
        return operation, request

    def batch_write(self, table):
        if self.chance(0.7):
            return {"PutRequest": {"Item": self.item(table)}}
        return {"DeleteRequest": {"Key": self.key(table)}}

    def key_condition(self, table, request, values):
        keys = self.tables[table]
        values[":p"] = self.scalar(keys[0][1])
        text = "pk = :p"
        if len(keys) > 1 and self.chance(0.7):
            values[":s"] = self.scalar(keys[1][1])
            form = self.random.randrange(4 if keys[1][1] == "S" else 3)
            if form == 0:
                text += f" AND sk {self.pick(['=', '<', '<=', '>', '>='])} :s"
            elif form == 1:
                values[":t"] = self.scalar(keys[1][1])
                text += " AND sk BETWEEN :s AND :t"
            elif form == 2:
                text = f"sk {self.pick(['<', '>='])} :s AND pk = :p"
            else:
                text += " AND begins_with(sk, :s)"
        request["KeyConditionExpression"] = text
        if self.chance(0.3):
            request["ScanIndexForward"] = False
        if self.chance(0.3):
            request["Limit"] = self.random.randint(1, 4)

    def spoil(self, request):
        """Makes one thing wrong."""
        request = copy.deepcopy(request)
        form = self.random.randrange(8)
        texts = [name for name in request if name.endswith("Expression")]
        if form == 0:
            request.pop(self.pick(list(request)))
        elif form == 1:
            request[self.pick(list(request))] = self.pick([5, True, "text", [], {}])
        elif form == 2 and texts:
            name = self.pick(texts)
            cut = self.random.randrange(len(request[name]))
            request[name] = request[name][:cut]
        elif form == 3 and texts:
            name = self.pick(texts)
            at = self.random.randrange(len(request[name]) + 1)
            request[name] = request[name][:at] + self.pick(["!", "(", ")", " AND ", ",", "status", ":", "#"]) + request[name][at:]
        elif form == 4:
            request.setdefault("ExpressionAttributeValues", {})[":unused"] = {"S": "x"}
        elif form == 5:
            request["TableName"] = self.pick(["nowhere", "ab", "not valid!", ""])
        elif form == 6:
            for member in ("Key", "Item"):
                if member in request:
                    request[member][self.pick(["pk", "sk", "n"])] = self.pick([{"S": ""}, {"N": "x"}, {"SS": []}, {"SS": ["a", "a"]}, {}, {"S": "a", "N": "1"}, {"NULL": False}, {"N": "1e200"}, {"B": "!"}])
        else:
            request["ReturnValues"] = self.pick(["ALL_NEW", "EVERYTHING", "UPDATED_OLD"])
        return request


def known(*texts):
    texts = [json.dumps(text, sort_keys=True) for text in texts]
    return any(all(re.search(pattern, text) for pattern, text in zip(patterns, texts)) for patterns in KNOWN)


def run(seed, ours, oracle, count, show):
    generator = Generator(seed)
    for table in generator.create():
        for endpoint in (ours, oracle):
            status, answer = endpoint.call("CreateTable", table)
            assert status == 200, answer
            while endpoint.call("DescribeTable", {"TableName": table["TableName"]})[1]["Table"]["TableStatus"] != "ACTIVE":
                pass
    differences = []
    for _ in range(count):
        operation, request = generator.request()
        mine = outcome(operation, *ours.call(operation, request))
        other = outcome(operation, *oracle.call(operation, request))
        if mine == other:
            continue
        if mine["status"] == 200 or other["status"] == 200:
            repair(generator, ours, oracle, operation, request)
        if not known(mine, other, request):
            differences.append((operation, request, mine, other))
    for table in generator.tables:
        for endpoint in (ours, oracle):
            endpoint.call("DeleteTable", {"TableName": table})
    for operation, request, mine, other in differences[:show]:
        print(f"seed={seed} {operation} {json.dumps(request)}\n  ours   {json.dumps(mine)}\n  oracle {json.dumps(other)}")
    return differences


def repair(generator, ours, oracle, operation, request):
    """After a write that only one of them took, its key is deleted at both, so that what follows compares."""
    table = request.get("TableName")
    if table not in generator.tables or operation not in ("PutItem", "UpdateItem", "DeleteItem"):
        return
    source = request.get("Key") or request.get("Item") or {}
    key = {name: source[name] for name, _ in generator.tables[table] if name in source}
    for endpoint in (ours, oracle):
        endpoint.call("DeleteItem", {"TableName": table, "Key": key})


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("ours")
    arguments.add_argument("oracle")
    arguments.add_argument("--seeds", default="0..10")
    arguments.add_argument("--requests", type=int, default=400)
    arguments.add_argument("--show", type=int, default=10)
    arguments = arguments.parse_args()
    ours, oracle = Endpoint(arguments.ours), Endpoint(arguments.oracle)
    first, last = map(int, arguments.seeds.split(".."))
    kinds = collections.Counter()
    compared = failed = 0
    for seed in range(first, last):
        differences = run(seed, ours, oracle, arguments.requests, arguments.show)
        compared += arguments.requests
        failed += len(differences)
        for operation, _, mine, other in differences:
            shorten = lambda found: (found["status"], (found.get("message") or "")[:70])
            kinds[(operation, shorten(mine), shorten(other))] += 1
    for (operation, mine, other), count in kinds.most_common(60):
        print(f"{count:5} {operation}: ours {mine}, oracle {other}")
    print(f"{compared - failed} passed, {failed} failed")
    return 1 if failed or not compared else 0


sys.exit(main())
