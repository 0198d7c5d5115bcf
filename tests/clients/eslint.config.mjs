// What is asked of schema.graphql: all that graphql-eslint recommends, and a description of everything.
import plugin from "@graphql-eslint/eslint-plugin";

const { "flat/schema-recommended": recommended, "flat/schema-relay": relay } = plugin.configs;
const schema = new URL("../../schema.graphql", import.meta.url).pathname;

export default [
  {
    files: ["**/*.graphql"],
    plugins: { "@graphql-eslint": plugin },
    languageOptions: { parser: plugin.parser, parserOptions: { graphQLConfig: { schema } } },
    rules: {
      ...recommended.rules,
      ...relay.rules,
      "@graphql-eslint/require-description": ["error", {
        types: true, rootField: true, FieldDefinition: true, InputValueDefinition: true, EnumValueDefinition: true,
        DirectiveDefinition: true,
        // `@include`, `@skip` and `@specifiedBy` are GraphQL's own, and so are their arguments.
        ignoredSelectors: ["InputValueDefinition[parent.kind=DirectiveDefinition]"],
      }],
      "@graphql-eslint/strict-id-in-types": ["error", { exceptions: {
        // Parts of an answer or of the object in which they stand, and tokens that must not be kept in a cache.
        suffixes: ["Payload", "UserError", "Connection", "Edge"],
        types: ["Money", "PageInfo", "StockUpdate", "Session"],
      } }],
      // Some lists are short and whole (`sizes`, `userErrors`); `nodes` is for those who need no cursors.
      "@graphql-eslint/relay-edge-types": ["error", { listTypeCanWrapOnlyEdgeType: false }],
      // Lists go forward only; `drops` turns round with `reverse`.
      "@graphql-eslint/relay-arguments": ["error", { includeBoth: false }],
      // No way to except a field: `User.username` and `Purchase.purchasedAt` are words and carry no prefix.
      "@graphql-eslint/no-typename-prefix": "off",
    },
  },
];
