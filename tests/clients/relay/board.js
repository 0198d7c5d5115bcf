// What a frontend on Relay writes: a list that loads more, a drop that is asked for again, and the drop's own list.
import { graphql } from "relay-runtime";

export const BoardQuery = graphql`
  query boardQuery($first: Int!) {
    ...board_drops @arguments(first: $first)
  }
`;

export const drops = graphql`
  fragment board_drops on Query
  @argumentDefinitions(first: { type: "Int", defaultValue: 20 }, after: { type: "String" })
  @refetchable(queryName: "boardDropsQuery") {
    drops(first: $first, after: $after) @connection(key: "board_drops") {
      edges {
        node {
          id
          ...board_drop
        }
      }
    }
  }
`;

export const drop = graphql`
  fragment board_drop on Drop @refetchable(queryName: "boardDropQuery") {
    name
    status
    stockVersion
    startsAt
    sizes { id size availableStock }
    ...board_holds
  }
`;

export const holds = graphql`
  fragment board_holds on Drop
  @argumentDefinitions(first: { type: "Int", defaultValue: 20 }, after: { type: "String" })
  @refetchable(queryName: "boardHoldsQuery") {
    activeReservations(first: $first, after: $after) @connection(key: "board_activeReservations") {
      edges {
        node {
          id
          expiresAt
          user { username }
        }
      }
    }
  }
`;

export const ReserveMutation = graphql`
  mutation boardReserveMutation($input: ReserveInput!) {
    reserve(input: $input) {
      reservation { id expiresAt }
      drop { ...board_drop }
      userErrors { code message }
    }
  }
`;

export const WatchSubscription = graphql`
  subscription boardWatchSubscription($dropId: ID!) {
    stockUpdated(dropId: $dropId) { drop { ...board_drop } }
  }
`;
