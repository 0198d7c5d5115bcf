// What a frontend's build does with example/*.ts: types from schema.graphql by graphql-codegen's client preset, as its
// command line makes them, then the TypeScript compiler. The results, example/gql and example/built, are not kept.
import { spawnSync } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { preset } from "@graphql-codegen/client-preset";
import { codegen } from "@graphql-codegen/core";
import { gqlPluckFromCodeString } from "@graphql-tools/graphql-tag-pluck";
import { buildSchema, parse } from "graphql";

const here = new URL(".", import.meta.url).pathname;
const folder = `${here}example/`;
const config = {
  scalars: { DateTime: "string" },
  strictScalars: true,
  useTypeImports: true,
  importExtension: ".js",
  emitLegacyCommonJSImports: false,
};

export const readExample = (name) => readFile(folder + name, "utf8");

/** The generated files. Throws when a document does not fit the schema. */
export async function generate(source) {
  const schema = await readFile(`${here}../../schema.graphql`, "utf8");
  // The texts exactly as they stand in the source: `graphql(..)` finds its type by them.
  const tags = { globalGqlIdentifierName: "graphql", skipIndent: true };
  const found = await gqlPluckFromCodeString("buy.ts", source, tags);
  const files = await preset.buildGeneratesSection({
    baseOutputDir: `${folder}gql/`,
    schema: parse(schema),
    schemaAst: buildSchema(schema),
    documents: found.map(({ body }) => ({ location: "buy.ts", rawSDL: body, document: parse(body) })),
    config,
    presetConfig: { fragmentMasking: false },
    plugins: [],
    pluginMap: {},
  });
  return Promise.all(files.map(async (file) => [file.filename, await codegen(file)]));
}

/** Makes example/built. Throws what the compiler says. */
export async function compile() {
  const files = await generate(await readExample("buy.ts"));
  for (const dir of ["gql", "built"]) await rm(folder + dir, { recursive: true, force: true });
  await mkdir(`${folder}gql`);
  for (const [name, text] of files) await writeFile(name, text);
  const tsc = [`${here}node_modules/typescript/bin/tsc`, "--project", folder];
  const { status, stdout } = spawnSync(process.execPath, tsc, { encoding: "utf8" });
  if (status !== 0) throw new Error(stdout);
}
