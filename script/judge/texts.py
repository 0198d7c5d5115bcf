"""Writes a request for each text that the API takes, with a value that is good there and the star where sqlmap writes
behind it, into the folder given."""

import json
import os
import pathlib
import sys
from urllib.parse import urlsplit

from fuzz import ask, cursors, ids, signed_in, tokens

drop, _, hold = ids[:3]
address = urlsplit(os.environ["JUDGE_URL"])
person = {"username": "judge", "email": "judge@example.com", "password": "judge or jury"}
shoe = {"name": "Judge", "description": "d", "imageUrl": "https://images.example/j", "startsAt": "2030-01-01T00:00:00Z"}
shoe |= {"price": {"amount": 1, "currency": "USD"}, "sizes": [{"size": "US 9", "stock": 1}]}
wanted = {"dropId": drop, "size": "US 9", "idempotencyKey": "judge-text", "admissionToken": "token"}
queries = [
    ("query($x: ID!) { node(id: $x) { id } }", drop),
    ("query($x: ID!) { nodes(ids: [$x]) { id } }", hold),
    ("query($x: ID!) { drop(id: $x) { id } }", drop),
    ("query($x: String) { drops(after: $x) { nodes { id } } }", cursors[0]),
    ("query($x: String) { viewer { reservations(after: $x) { nodes { id } } } }", cursors[3]),
    ("query($x: ID) { viewer { purchases(dropId: $x) { nodes { id } } } }", drop),
]
inputs = {
    "signup": [(person, key) for key in person],
    "login": [(person | {"username": None}, key) for key in ("email", "password")],
    "refresh": [({"refreshToken": tokens[0]}, "refreshToken")],
    "logout": [({"refreshToken": tokens[1]}, "refreshToken")],
    "reserve": [(wanted, key) for key in wanted],
    "purchase": [({"reservationId": hold}, "reservationId")],
    "cancelReservation": [({"reservationId": hold}, "reservationId")],
    "cancelDrop": [({"dropId": ids[-5]}, "dropId")],
    "createDrop": [(shoe, key) for key in ("name", "description", "imageUrl", "startsAt", "currency", "size")]
    # With a key of its own each of the others would be another drop's.
    + [(shoe | {"idempotencyKey": "judge-drop"}, "idempotencyKey")],
}


def marked(value, key):
    """The value with a star behind the text of that name, wherever it is."""
    if isinstance(value, list):
        return [marked(entry, key) for entry in value]
    if isinstance(value, dict):
        return {k: v + "*" if k == key else marked(v, key) for k, v in value.items() if v is not None}
    return value


requests = [(query.split("{")[1].strip().split("(")[0], query, {"x": value + "*"}) for query, value in queries]
for field, texts in inputs.items():
    told = "endedSessions" if field == "logout" else "userErrors { code }"
    kind = f"{field[0].upper()}{field[1:]}Input!"
    query = f"mutation($x: {kind}) {{ {field}(input: $x) {{ {told} }} }}"
    requests += [(f"{field} {key}", query, {"x": marked(value, key)}) for value, key in texts]
for number, (name, query, variables) in enumerate(requests):
    # Without the stars each has to be right.
    ask(query, **json.loads(json.dumps(variables).replace("*", "")))
    body = json.dumps({"query": query, "variables": variables})
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {signed_in['authorization']}\r\n\r\n"
    pathlib.Path(sys.argv[1], f"{number:02} {name}").write_bytes((head + body).encode())
