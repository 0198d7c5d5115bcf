import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { after, test } from "node:test";
import compiler from "relay-compiler";
import { RESERVE, ask, liveDrop, signIn, startServer } from "./server.mjs";

const config = {
  src: "src",
  schema: "schema.graphql",
  language: "javascript",
  artifactDirectory: "compiled",
  eagerEsModules: true,
  customScalarTypes: { DateTime: "string" },
  requireCustomScalarTypes: true,
};
const schema = await readFile(new URL("../../schema.graphql", import.meta.url), "utf8");
const board = await readFile(new URL("relay/board.js", import.meta.url), "utf8");
const dir = await mkdtemp("/tmp/sneaker-drop-relay-");
after(() => rm(dir, { recursive: true, force: true }));
for (const folder of ["src", "compiled"]) await mkdir(`${dir}/${folder}`);
for (const [name, text] of [
  ["package.json", '{ "type": "module" }'],
  ["relay.config.json", JSON.stringify(config)],
  ["schema.graphql", schema],
]) await writeFile(`${dir}/${name}`, text);

/** What the compiler finds wrong; nothing, when it compiled. */
async function compile(source) {
  await writeFile(`${dir}/src/board.js`, source);
  const run = spawnSync(compiler, ["--noWatchman", "--output", "quiet-with-errors"], { cwd: dir, encoding: "utf8" });
  assert.equal(run.error, undefined);
  return run.status === 0 ? "" : run.stdout + run.stderr;
}

test("relay-compiler refuses what the schema does not have", async () => {
  assert.match(await compile(board.replace("expiresAt", "lapsesAt")), /`Reservation` has no field `lapsesAt`/);
});

test("what relay-compiler makes of lists that load more pages through drops and holds", async () => {
  assert.equal(await compile(board), "");
  const base = await startServer();
  const run = async (name, variables) => {
    const { default: made } = await import(`${dir}/compiled/${name}.graphql.js`);
    return ask(base, made.params.text, variables);
  };
  const { id } = await liveDrop(base);
  // A second hold beside the demo's.
  await ask(base, RESERVE, { input: { dropId: id, size: "US 9" } }, await signIn(base, "june"));
  for (const [name, list] of [
    ["boardDropsQuery", ({ drops }) => drops],
    ["boardHoldsQuery", ({ node }) => node.activeReservations],
  ]) {
    const ids = ({ edges }) => edges.map(({ node }) => node.id);
    const paged = [];
    for (let page, cursor = null; page?.pageInfo.hasNextPage ?? true; cursor = page.pageInfo.endCursor) {
      page = list(await run(name, { id, first: 1, after: cursor }));
      paged.push(...ids(page));
    }
    assert.ok(paged.length > 1);
    assert.deepEqual(paged, ids(list(await run(name, { id }))));
  }
  assert.equal((await run("boardDropQuery", { id })).node.id, id);
});
