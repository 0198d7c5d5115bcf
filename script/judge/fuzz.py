"""What schemathesis has to know: ids, cursors and tokens that exist, without which everything stops at "not found"; and
which errors the API may tell. JUDGE_URL says where it is, JUDGE_AS that the calls are a stranger's or an administrator's."""

import os

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes

# README.md, less what the limits of this run make impossible and what is a mistake of ours.
CODES = {"UNAUTHENTICATED", "FORBIDDEN", "BAD_USER_INPUT", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "OVERLOADED"}


def ask(query, **variables):
    body = {"query": query, "variables": variables}
    answer = requests.post(os.environ["JUDGE_URL"], json=body, headers=signed_in).json()
    assert "errors" not in answer, answer
    return answer["data"]


def login(name):
    query = """mutation($email: String!) { login(input: { email: $email, password: "drop-day-2026" }) {
        session { accessToken refreshToken } } }"""
    return ask(query, email=f"{name}@sneaker-drop.example")["login"]["session"]


signed_in = {}
signed_in = {"authorization": f"Bearer {login('admin')['accessToken']}"}
ids, cursors, tokens = [], [], []
for number in range(12):
    made = ask(
        """mutation($sizes: [DropSizeInput!]) { createDrop(input: { name: "Judge", price: { amount: 1, currency: "USD" },
        holdSeconds: 3600, purchaseLimit: 10, sizes: $sizes }) { drop { id sizes { id } } } }""",
        sizes=[{"size": size, "stock": 100} for size in ("US 9", "ONE")][: 1 + number % 2],
    )["createDrop"]["drop"]
    ids += [made["id"], made["sizes"][0]["id"]]
    for key in range(4):
        held = ask(
            """mutation($drop: ID!, $key: String) { reserve(input: { dropId: $drop, size: "US 9", idempotencyKey: $key }) {
            reservation { id } } }""",
            drop=made["id"],
            key=f"judge-{key}",
        )["reserve"]["reservation"]["id"]
        ids.append(held)
    bought = ask("mutation($it: ID!) { purchase(input: { reservationId: $it }) { purchase { id user { id } } } }", it=held)
    ids.append(bought["purchase"]["purchase"]["id"])
ids += [bought["purchase"]["purchase"]["user"]["id"], ask("{ viewer { id } }")["viewer"]["id"]]
told = ask("""{ drops(first: 3) { edges { cursor } }
    viewer { reservations(first: 3) { edges { cursor } } purchases(first: 3) { edges { cursor } } } }""")
for connection in (told["drops"], *told["viewer"].values()):
    cursors += [edge["cursor"] for edge in connection["edges"]]
tokens += [login(name)["refreshToken"] for name in ("mika", "noor", "theo", "june")]

anything = st.text(st.characters(codec="utf-8"), max_size=300)
known = st.sampled_from(
    [*tokens, "US 9", "ONE", "USD", "JPY", "judge-1", "drop-day-2026", "mika@sneaker-drop.example",
     "https://images.example/judge.png", "' OR 1=1 --", "\\", "%", "a" * 6000]
)  # fmt: skip
made_up = st.emails() | st.from_regex(r"[a-z]{3,12}", fullmatch=True) | st.text(st.characters(codec="ascii"), min_size=12, max_size=40)
schemathesis.graphql.scalar("ID", (st.sampled_from(ids) | st.sampled_from(ids) | anything).map(nodes.String))
schemathesis.graphql.scalar("String", (anything | known | st.sampled_from(cursors) | made_up).map(nodes.String))
edges = st.sampled_from([-(2**31), -1, 0, 51, 2**31 - 1])
schemathesis.graphql.scalar("Int", (st.integers(1, 50) | st.integers(1, 50) | edges).map(nodes.Int))


@schemathesis.hook
def before_call(ctx, case, kwargs):
    if os.environ["JUDGE_AS"] != "stranger":
        case.headers.update(signed_in)


@schemathesis.check
def only_errors_of_the_contract(ctx, response, case):
    try:
        told = response.json()
        codes = {error["extensions"]["code"] for error in told.get("errors", [])}
    except (ValueError, KeyError, AttributeError):
        codes = {"none"}
    fine = codes <= CODES and (response.status_code < 500 or codes == {"OVERLOADED"})
    assert fine, f"{response.status_code}: {response.text[:300]}"
