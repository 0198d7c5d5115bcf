// A server of the tests' own, on a port of its own, with demo data in a folder of its own.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { after } from "node:test";

const program = process.env.SNEAKER_DROP ?? new URL("../../target/debug/sneaker-drop", import.meta.url).pathname;
export const PASSWORD = "drop-day-2026";

/** Starts a server; it stops after the tests of the file. Returns its address. */
export async function startServer() {
  return (await startOne()).base;
}

/** A server that can be stopped before, and one in its place, at the same address and with the same data. */
export async function startOne() {
  const dir = await mkdtemp("/tmp/sneaker-drop-clients-");
  const running = { base: undefined, stop: undefined };
  const start = async (port) => Object.assign(running, await launch(dir, port));
  after(async () => {
    await running.stop();
    await rm(dir, { recursive: true, force: true });
  });
  await start("0");
  return { base: running.base, stop: () => running.stop(), startAgain: () => start(new URL(running.base).port) };
}

async function launch(dir, port) {
  const env = { PATH: process.env.PATH, DATA_DIR: `${dir}/data`, PORT: port, LOG_FORMAT: "json" };
  const server = spawn(program, ["serve", "--demo"], { cwd: dir, env, stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((resolve) => server.once("exit", resolve));
  const stop = async () => {
    server.kill("SIGTERM");
    await ended;
  };
  const said = [];
  for await (const line of createInterface({ input: server.stderr })) {
    said.push(line);
    const address = /listening on (http:\/\/[^/]+)\/graphql/.exec(line)?.[1];
    if (address) {
      server.stderr.resume();
      return { base: address, stop };
    }
  }
  throw new Error(`the server ended: ${said.join("\n")}`);
}

/** The data of an operation over plain HTTP. */
export async function ask(base, query, variables, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const body = JSON.stringify({ query, variables });
  const answer = await (await fetch(`${base}/graphql`, { method: "POST", headers, body })).json();
  if (answer.errors) throw new Error(JSON.stringify(answer.errors));
  return answer.data;
}

export async function signIn(base, name) {
  const query = `mutation($input: LoginInput!) { login(input: $input) { session { accessToken } } }`;
  const input = { email: `${name}@sneaker-drop.example`, password: PASSWORD };
  return (await ask(base, query, { input })).login.session.accessToken;
}

/** The demo drop that is live. */
export async function liveDrop(base) {
  const query = `{ drops(statuses: [LIVE]) { nodes { id name stockVersion } } }`;
  return (await ask(base, query)).drops.nodes.find((drop) => drop.name.startsWith("Meridian"));
}

export const RESERVE = `mutation Reserve($input: ReserveInput!) { reserve(input: $input) {
  reservation { id status } drop { id stockVersion availableStock heldStock } userErrors { code } } }`;
export const CANCEL = `mutation Cancel($input: CancelReservationInput!) { cancelReservation(input: $input) {
  drop { id stockVersion } userErrors { code } } }`;
export const WATCH = `subscription Watch($dropId: ID!) { stockUpdated(dropId: $dropId) {
  version drop { id stockVersion availableStock heldStock } } }`;

/** Reserves a pair and gives it back: two changes of the stock. */
export async function reserveAndCancel(base, token, dropId) {
  const { reserve } = await ask(base, RESERVE, { input: { dropId, size: "US 9" } }, token);
  await ask(base, CANCEL, { input: { reservationId: reserve.reservation.id } }, token);
}
