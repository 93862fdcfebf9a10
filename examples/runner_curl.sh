#!/bin/sh
# A runner in a shell, with curl and jq: runs one job of the kind `curl-upper`, whose payload is a text, then ends.
#   TENURE_RUNNER_URL=… TENURE_TOKEN=… sh runner_curl.sh [POOL]
# It shows the calls, and nothing of what a runner for long work must do besides (renew, trust): see runner_node.
set -eu
url=${TENURE_RUNNER_URL:-http://127.0.0.1:7071}
pool=${1:-default}

call() { # PATH, with the request on stdin; prints the answer, or the refusal and fails
    curl --silent --show-error --fail-with-body --max-time 40 --json @- \
        ${TENURE_TOKEN:+--header "Authorization: Bearer $TENURE_TOKEN"} "$url/v1/runner/$1"
}

session=$(jq -n --arg pool "$pool" \
    '{runner: {name: "curl", pools: [$pool], kinds: ["curl-upper"], capacity: 1}, ttl_s: 60}' | call session | jq -r .session)

# Up to half a minute for each look; the session lives for a minute after each renewal.
claims='[]'
while [ "$claims" = '[]' ]; do
    claims=$(jq -n --arg session "$session" '{session: $session, wait_s: 20}' | call claim | jq -c '[.claims[].claim]')
    jq -n --arg session "$session" '{tokens: [$session]}' | call renew > /dev/null
done

attempt=$(jq -n --argjson claims "$claims" '{claims: $claims}' | call start | jq -c '.attempts[0]')
if [ "$attempt" != null ]; then
    result=$(printf %s "$attempt" | jq -r .payload | tr '[:lower:]' '[:upper:]')
    printf %s "$attempt" | jq --arg result "$result" \
        '{reports: [{attempt_token, outcome: "completed", result: $result}]}' | call finish
fi
jq -n --arg session "$session" '{session: $session}' | call close > /dev/null
