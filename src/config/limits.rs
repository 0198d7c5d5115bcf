//! The limits on requests and clients, each a setting.
//!
//! The defaults let GraphiQL's introspection and the code generators through, with room to spare. Each upper bound is
//! one at which the server was tested to survive.

/// A limit, as shown by `--help`.
#[derive(Debug)]
pub struct Limit {
    /// Name of the environment variable, and of `extensions.limit` when a document or an answer is refused.
    pub name: &'static str,
    /// What it limits.
    pub meaning: &'static str,
    /// The default.
    pub default: usize,
    /// The lowest value allowed.
    pub least: usize,
    /// The highest value allowed.
    pub most: usize,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $field:ident: $name:literal, $default:literal in $least:literal..=$most:literal, $meaning:literal;)*) => {
        /// The values of all limits.
        #[derive(Clone, Copy, Debug)]
        pub struct Limits {
            $(#[doc = $meaning] $(#[$doc])* pub $field: usize,)*
        }

        /// All limits, in the order of `--help`.
        pub const LIMITS: [Limit; [$($name),*].len()] = [
            $(Limit { name: $name, meaning: $meaning, default: $default, least: $least, most: $most },)*
        ];

        impl Limits {
            /// Sets each limit to its highest value.
            #[cfg(test)]
            pub(crate) fn highest() -> Self {
                Self::read(|limit| limit.most)
            }

            /// Sets each limit to what `value` returns for it.
            pub(super) fn read(mut value: impl FnMut(&Limit) -> usize) -> Self {
                let [$($field),*] = &LIMITS;
                Self { $($field: value($field),)* }
            }
        }
    };
}

limits! {
    /// GraphiQL's introspection has some 2 KiB.
    document_bytes: "QUERY_MAX_BYTES", 8192 in 1024..=65536, "bytes of a document";
    /// Introspection has some 350.
    tokens: "QUERY_MAX_TOKENS", 1000 in 100..=10000, "tokens of a document";
    /// The parser recurses into each. Introspection has 13.
    brackets: "QUERY_MAX_BRACKETS", 32 in 8..=64, "brackets of any kind open at once in a document";
    /// Introspection has some 150.
    selections: "QUERY_MAX_SELECTIONS", 1000 in 50..=10000, "selections of a document with its fragments expanded";
    /// A fragment counts as a level. Introspection has 17.
    depth: "QUERY_MAX_DEPTH", 24 in 4..=64, "levels of a document with its fragments expanded";
    /// Relay aliases many fields.
    aliases: "QUERY_MAX_ALIASES", 50 in 0..=1000, "aliases of a document with its fragments expanded, including __typename's";
    /// No client's compiler generates any.
    repeats: "QUERY_MAX_REPEATS", 10 in 0..=1000, "fields selected more than once in the same place, including __typename";
    /// Clients use one or two.
    directives: "QUERY_MAX_DIRECTIVES", 8 in 2..=50, "directives in one place of a document";
    /// Fifty drops with everything in them cost some twenty thousand; holds of drops of holds grow fiftyfold at each
    /// level.
    cost: "QUERY_MAX_COST", 25000 in 1000..=1000000, "fields of the answer with every list at its longest";
    /// A page has a handful.
    socket_operations: "SOCKET_MAX_OPERATIONS", 32 in 1..=1000, "operations at once on one WebSocket";
    /// Larger batches are not faster, and hold the drop's row lock longer.
    batch: "STOCK_MAX_BATCH", 128 in 1..=1024, "reservations, purchases and cancellations of one drop in one transaction";
    /// Each is a file, and a process's open files are limited. A browser has one socket and at most six other
    /// connections.
    connections_per_address: "CONNECTIONS_PER_ADDRESS", 4000 in 1..=1000000, "open connections from one address, not counting WebSockets";
    /// A household, an office or a mobile operator's gateway shares one address (or /64 network of IPv6).
    streams_per_address: "STREAMS_PER_ADDRESS", 1000 in 1..=1000000, "open WebSockets and streams from one address";
    /// Enough for eight hundred uncached pages of ten drops per second, or some thousands of smaller queries.
    read_time_per_address: "READ_TIME_PER_ADDRESS", 250 in 1..=100000, "milliseconds of CPU time per second for queries and updates of one address, with a burst of ten seconds' worth";
    /// A school's network shares one address too; a guesser has many.
    signins_per_address: "SIGNINS_PER_ADDRESS", 60 in 1..=1000000, "sign-ins and sign-ups per minute from one address";
    /// An address that has signed in to the account before has as many of its own, whatever others do.
    wrong_passwords: "WRONG_PASSWORDS", 10 in 1..=1000000, "wrong passwords for one account per ten minutes";
    /// OWASP's password storage cheat sheet: argon2id with 19 MiB and two passes, or stronger. A weaker hash is
    /// replaced when its owner next signs in.
    hash_memory_kib: "ARGON2_MEMORY_KIB", 19456 in 19456..=1048576, "KiB of memory for a password hash";
    hash_passes: "ARGON2_PASSES", 2 in 2..=20, "passes over that memory";
    /// One click per second, for a minute.
    reserves_per_buyer: "RESERVES_PER_BUYER", 60 in 1..=1000000, "calls of reserve per minute by one buyer";
    /// A buyer who reserves and cancels in turn keeps a pair from all others.
    cancels_per_buyer: "CANCELS_PER_BUYER", 10 in 1..=1000000, "calls of cancelReservation per minute by one buyer";
}

impl Default for Limits {
    fn default() -> Self {
        Self::read(|limit| limit.default)
    }
}
