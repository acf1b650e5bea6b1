// The document client of the JavaScript SDK v3 against the HTTP API: node document_client.mjs ENDPOINT.
// The closing line is `N passed, M failed`.

import assert from "node:assert/strict";
import {
  ConditionalCheckFailedException,
  CreateTableCommand,
  DeleteTableCommand,
  DynamoDBClient,
  waitUntilTableExists,
} from "@aws-sdk/client-dynamodb";
import {
  BatchGetCommand,
  BatchWriteCommand,
  DynamoDBDocumentClient,
  GetCommand,
  PutCommand,
  UpdateCommand,
  paginateQuery,
  paginateScan,
} from "@aws-sdk/lib-dynamodb";

const plain = new DynamoDBClient({ endpoint: process.argv[2] });
const client = DynamoDBDocumentClient.from(plain);
const TableName = "javascript";

const tests = {
  async "documents come back as they were"() {
    const Item = {
      pk: "a", sk: 0, text: "ü", list: [1, "two", { three: 3 }], map: { deep: { deeper: true } },
      set: new Set(["x", "y"]), bytes: new Uint8Array([0, 255]), nothing: null,
    };
    await client.send(new PutCommand({ TableName, Item }));
    const found = await client.send(new GetCommand({ TableName, Key: { pk: "a", sk: 0 } }));
    assert.deepEqual(found.Item, Item);
  },
  async "updates and conditions run at the owner"() {
    const update = {
      TableName, Key: { pk: "a", sk: 1 }, UpdateExpression: "SET #n = if_not_exists(#n, :zero) + :one",
      ConditionExpression: "attribute_not_exists(#n) OR #n < :max", ExpressionAttributeNames: { "#n": "count" },
      ExpressionAttributeValues: { ":zero": 0, ":one": 1, ":max": 3 }, ReturnValues: "ALL_NEW",
    };
    for (const count of [1, 2, 3]) {
      assert.equal((await client.send(new UpdateCommand(update))).Attributes.count, count);
    }
    await assert.rejects(client.send(new UpdateCommand({ ...update, ReturnValuesOnConditionCheckFailure: "ALL_OLD" })),
      (error) => error instanceof ConditionalCheckFailedException && error.Item.count.N === "3");
  },
  async "batches and pages see every item"() {
    const items = Array.from({ length: 60 }, (_, sk) => ({ pk: "p", sk, even: sk % 2 === 0 }));
    for (let start = 0; start < 60; start += 25) {
      const writes = items.slice(start, start + 25).map((Item) => ({ PutRequest: { Item } }));
      await client.send(new BatchWriteCommand({ RequestItems: { [TableName]: writes } }));
    }
    const Keys = [{ pk: "p", sk: 1 }, { pk: "p", sk: 2 }, { pk: "p", sk: 99 }];
    const got = await client.send(new BatchGetCommand({ RequestItems: { [TableName]: { Keys } } }));
    assert.equal(got.Responses[TableName].length, 2);
    const query = {
      TableName, KeyConditionExpression: "pk = :p", FilterExpression: "even = :e", ProjectionExpression: "sk",
      ExpressionAttributeValues: { ":p": "p", ":e": true }, ScanIndexForward: false,
    };
    const seen = [];
    for await (const page of paginateQuery({ client, pageSize: 7 }, query)) {
      seen.push(...page.Items.map((item) => item.sk));
    }
    assert.deepEqual(seen, items.filter((item) => item.even).map((item) => item.sk).reverse());
    let scanned = 0;
    for await (const page of paginateScan({ client, pageSize: 9 }, { TableName })) {
      scanned += page.Items.length;
    }
    assert.equal(scanned, 62);
  },
};

await client.send(new CreateTableCommand({
  TableName, BillingMode: "PAY_PER_REQUEST",
  AttributeDefinitions: [{ AttributeName: "pk", AttributeType: "S" }, { AttributeName: "sk", AttributeType: "N" }],
  KeySchema: [{ AttributeName: "pk", KeyType: "HASH" }, { AttributeName: "sk", KeyType: "RANGE" }],
}));
await waitUntilTableExists({ client: plain, maxWaitTime: 30, minDelay: 1, maxDelay: 1 }, { TableName });
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok   ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}`);
    console.error(error);
  }
}
await client.send(new DeleteTableCommand({ TableName }));
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
