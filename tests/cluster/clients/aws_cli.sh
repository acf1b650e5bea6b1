#!/usr/bin/env bash
# The AWS CLI against the HTTP API: aws_cli.sh AWS ENDPOINT. The last line is `N passed, M failed`.
set -Eeuo pipefail
aws=$1
endpoint=$2
passed=0
failed=0

dynamodb() {
    "$aws" dynamodb --endpoint-url "$endpoint" --output json "$@"
}

# expect NAME WANTED FOUND
expect() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1: wanted $2, found $3"
    fi
}

dynamodb create-table --table-name cli --billing-mode PAY_PER_REQUEST \
    --attribute-definitions AttributeName=pk,AttributeType=S AttributeName=sk,AttributeType=N \
    --key-schema AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE >/dev/null
dynamodb wait table-exists --table-name cli
expect "a table is made and described" ACTIVE \
    "$(dynamodb describe-table --table-name cli --query Table.TableStatus --output text)"

for n in 1 2 3; do
    dynamodb put-item --table-name cli --item "{\"pk\":{\"S\":\"a\"},\"sk\":{\"N\":\"$n\"},\"v\":{\"S\":\"v$n\"}}"
done
expect "an item is read back" v2 "$(dynamodb get-item --table-name cli \
    --key '{"pk":{"S":"a"},"sk":{"N":"2"}}' --query Item.v.S --output text)"
expect "an update returns what it changed" 7 "$(dynamodb update-item --table-name cli \
    --key '{"pk":{"S":"a"},"sk":{"N":"2"}}' --update-expression 'SET hits = if_not_exists(hits, :z) + :s' \
    --expression-attribute-values '{":z":{"N":"0"},":s":{"N":"7"}}' --return-values UPDATED_NEW \
    --query Attributes.hits.N --output text)"
expect "a query filters and counts" "1 3" "$(dynamodb query --table-name cli \
    --key-condition-expression 'pk = :p' --filter-expression 'attribute_exists(hits)' \
    --expression-attribute-values '{":p":{"S":"a"}}' --query '[Count,ScannedCount]' --output text | tr '\t' ' ')"
expect "a scan pages by itself" 3 \
    "$(dynamodb scan --table-name cli --page-size 1 --query 'length(Items)')"
refused=$(dynamodb put-item --table-name cli --item '{"pk":{"S":"a"},"sk":{"N":"2"}}' \
    --condition-expression 'attribute_not_exists(pk)' 2>&1 || true)
expect "a condition that fails is told by its name" yes \
    "$(grep -q 'ConditionalCheckFailedException' <<<"$refused" && echo yes || echo "$refused")"
dynamodb delete-table --table-name cli >/dev/null
dynamodb wait table-not-exists --table-name cli
expect "a table is deleted" None \
    "$(dynamodb list-tables --query "TableNames[?@=='cli']|[0]" --output text)"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
