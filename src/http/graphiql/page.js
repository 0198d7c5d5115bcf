// The page to explore the API: GraphiQL with the token of whoever signs in, and a tab for each step of a drop.
"use strict";

const tokenField = document.getElementById("token");
const who = document.getElementById("who");
const endpoint = "/graphql";

// For as long as the tab lives, and for this tab only.
tokenField.value = sessionStorage.getItem("token") ?? "";
const bearer = () => (tokenField.value.trim() ? { authorization: `Bearer ${tokenField.value.trim()}` } : {});

let socket = null;

async function post(params, headers) {
  const response = await fetch(endpoint, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json", ...bearer(), ...headers },
    body: JSON.stringify(params),
  });
  return response.json();
}

async function showWho() {
  if (!tokenField.value.trim()) {
    who.textContent = "not signed in";
    return;
  }
  const answer = await post({ query: "{ viewer { role user { username } } }" }).catch(() => null);
  const viewer = answer?.data?.viewer;
  who.textContent = viewer ? viewer.user.username + (viewer.role === "ADMIN" ? " (admin)" : "") : "invalid token";
}

function setToken(token) {
  tokenField.value = token;
  sessionStorage.setItem("token", token);
  // The next subscription opens a socket for whoever is signed in now.
  socket?.dispose();
  socket = null;
  showWho();
}

// An answer with a session signs this page in; an UNAUTHENTICATED one shows that the token is invalid.
function notice(answer) {
  if (answer?.errors?.some((error) => error.extensions?.code === "UNAUTHENTICATED")) showWho();
  for (const payload of Object.values(answer?.data ?? {})) {
    const token = payload?.session?.accessToken;
    if (token) setToken(token);
  }
  return answer;
}

function isSubscription(query, operationName) {
  const name = operationName ? `\\s+${operationName}\\b` : "";
  return new RegExp(`(^|[}\\s])subscription${name}[\\s({@]`).test(query.replace(/#.*/g, ""));
}

function fetcher(given, options) {
  const params = { ...given };
  // Right after a change of tabs GraphiQL may still name the previous tab's operation.
  if (params.operationName && !new RegExp(`\\b${params.operationName}\\b`).test(params.query)) {
    delete params.operationName;
  }
  if (!isSubscription(params.query, params.operationName)) {
    return post(params, options?.headers).then(notice);
  }
  socket ??= graphqlWs.createClient({
    url: new URL(endpoint, location.href).href.replace(/^http/, "ws"),
    connectionParams: bearer,
    // A retry would send the same token.
    shouldRetry: (problem) => problem instanceof CloseEvent && problem.code !== FORBIDDEN,
  });
  return follow(socket.iterate(params));
}

const FORBIDDEN = 4403;

// GraphiQL shows the message of what is thrown, which an event lacks, and its stack.
async function* follow(events) {
  try {
    yield* events;
  } catch (problem) {
    if (!(problem instanceof CloseEvent)) throw problem;
    showWho();
    const why = problem.code === FORBIDDEN ? "the access token is invalid or expired, sign in" : problem.reason || "the server is unreachable";
    yield { errors: [{ message: `The socket was closed with ${problem.code}: ${why}.` }] };
  }
}

// The browser has randomUUID on HTTPS and loopback only.
const newKey = () => crypto.randomUUID?.() ?? String(Date.now());
const tab = (query, variables) => ({ query, variables: variables && JSON.stringify(variables, null, 2) });

function tabs(drop) {
  const dropId = drop?.id ?? "drop_..";
  const size = drop?.sizes.find((one) => one.availableStock > 0)?.size ?? "US 9";
  return [
    tab(`# 1. What is on sale.
# Press the button, or Ctrl-Enter.
query Drops {
  drops {
    nodes {
      id
      name
      status
      price { amount currency }
      availableStock
      heldStock
      soldStock
      sizes { size availableStock }
      activeReservations(first: 5) { totalCount nodes { user { username } size expiresAt } }
      recentBuyers { user { username } size pairNumber purchasedAt }
    }
  }
}
`),
    tab(`# 2. Sign up, or sign in with the demo data. The
# access token is filled in at the top.
mutation SignUp($input: SignupInput!) {
  signup(input: $input) {
    session { accessToken accessTokenExpiresAt refreshToken viewer { user { username } role } }
    userErrors { code field message }
  }
}

mutation SignIn {
  login(input: { email: "june@sneaker-drop.example", password: "drop-day-2026" }) {
    session { accessToken refreshToken viewer { user { username } role } }
    userErrors { code message }
  }
}

mutation SignInAsAdmin {
  login(input: { email: "admin@sneaker-drop.example", password: "drop-day-2026" }) {
    session { accessToken refreshToken viewer { user { username } role } }
    userErrors { code message }
  }
}
`, { input: { username: `visitor-${Math.random().toString(36).slice(2, 8)}`,
              email: `${Math.random().toString(36).slice(2)}@visitors.example`,
              password: "a pair of my own" } }),
    tab(`# 3. Watch the stock. Continue in a second browser
# window: GraphiQL stops this when you leave the tab.
subscription Watch($dropId: ID!) {
  stockUpdated(dropId: $dropId) {
    version
    status
    availableStock
    heldStock
    soldStock
    sizes { size availableStock }
    at
  }
}
`, { dropId }),
    tab(`# 4. Reserve a pair for a minute. The same key again
# returns the same reservation.
mutation Reserve($input: ReserveInput!) {
  reserve(input: $input) {
    reservation { id size pairNumber status expiresAt price { amount currency } }
    drop { id stockVersion availableStock heldStock }
    serverTime
    userErrors { code field message }
  }
}
`, { input: { dropId, size, idempotencyKey: newKey() } }),
    tab(`# 5. Purchase it. Copy the reservation's id from
# tab 4, or from Mine, into the variables.
mutation Purchase($input: PurchaseInput!) {
  purchase(input: $input) {
    purchase { id size pairNumber price { amount currency } purchasedAt }
    reservation { id status }
    drop { id stockVersion availableStock soldStock }
    userErrors { code message }
  }
}

query Mine {
  viewer { reservations(first: 5) { nodes { id status size expiresAt drop { name } } } }
}
`, { input: { reservationId: "res_.." } }),
    tab(`# 6. Create a drop, and cancel it by its id, as an
# administrator (SignInAsAdmin in tab 2).
mutation CreateDrop($input: CreateDropInput!) {
  createDrop(input: $input) {
    drop { id name status totalStock sizes { size } }
    userErrors { code field message }
  }
}

mutation CancelDrop {
  cancelDrop(input: { dropId: "drop_.." }) {
    drop { id status availableStock }
    userErrors { code message }
  }
}
`, { input: { name: "Tour Runner 'Slate'", price: { amount: 15000, currency: "USD" }, purchaseLimit: 2,
              sizes: [{ size: "US 9", stock: 10 }, { size: "US 10", stock: 5 }], idempotencyKey: newKey() } }),
  ];
}

// Tabs kept from the last visit may name drops of a database that no longer exists.
async function renew(drop) {
  // All three alike: GraphiQL opens another tab for a query that no tab contains.
  const kept = ["graphiql:tabState", "graphiql:query", "graphiql:variables"].filter((key) => localStorage.getItem(key));
  const ids = new Set(kept.flatMap((key) => localStorage.getItem(key).match(/drop_[\w-]{22}/g) ?? []).slice(0, 50));
  if (!drop || ids.size === 0) return;
  const query = "query Known($ids: [ID!]!) { nodes(ids: $ids) { id } }";
  const known = await post({ query, variables: { ids: [...ids] } });
  if (!known.data?.nodes) return;
  known.data.nodes.forEach((node) => node && ids.delete(node.id));
  for (const key of kept) {
    const renewed = localStorage.getItem(key).replace(/drop_[\w-]{22}/g, (id) => (ids.has(id) ? drop.id : id));
    localStorage.setItem(key, renewed);
  }
}

async function start() {
  const query = "{ drops(first: 1, statuses: [LIVE]) { nodes { id sizes { size availableStock } } } }";
  const answer = await post({ query }).catch(() => null);
  const live = answer?.data?.drops?.nodes[0];
  await renew(live).catch(() => {});
  ReactDOM.createRoot(document.getElementById("graphiql")).render(
    React.createElement(GraphiQL, {
      fetcher,
      defaultTabs: tabs(live),
      defaultEditorToolsVisibility: "variables",
      shouldPersistHeaders: false,
    }),
  );
}

tokenField.addEventListener("change", () => setToken(tokenField.value.trim()));
document.getElementById("sign-out").addEventListener("click", () => setToken(""));
showWho();
start();
