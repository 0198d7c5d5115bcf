//! The limits of a request and of a client, each a setting.
//!
//! The defaults let GraphiQL's introspection and what the code generators send through, with room to spare; each bound
//! above is one at which the server was tested to live.

/// One limit as `--help` shows it.
#[derive(Debug)]
pub struct Limit {
    /// Name of the environment variable. Where a document or an answer is refused, `extensions.limit` has it too.
    pub name: &'static str,
    /// What it limits.
    pub meaning: &'static str,
    /// What holds when nothing is set.
    pub default: usize,
    /// It cannot be set lower.
    pub least: usize,
    /// It cannot be set higher.
    pub most: usize,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $field:ident: $name:literal, $default:literal in $least:literal..=$most:literal, $meaning:literal;)*) => {
        /// All limits.
        #[derive(Clone, Copy, Debug)]
        pub struct Limits {
            $(#[doc = $meaning] $(#[$doc])* pub $field: usize,)*
        }

        /// Every limit, in the order in which `--help` shows them.
        pub const LIMITS: [Limit; [$($name),*].len()] = [
            $(Limit { name: $name, meaning: $meaning, default: $default, least: $least, most: $most },)*
        ];

        impl Limits {
            /// Each as high as it can be set.
            #[cfg(test)]
            pub(crate) fn highest() -> Self {
                Self::read(|limit| limit.most)
            }

            /// Each limit as `value` has it.
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
    /// The parser recurses with them. Introspection has 13.
    brackets: "QUERY_MAX_BRACKETS", 32 in 8..=64, "brackets of any kind that are open at once in a document";
    /// Introspection has some 150.
    selections: "QUERY_MAX_SELECTIONS", 1000 in 50..=10000, "fields that a document selects once its fragments are expanded";
    /// Levels with fragments among them. Introspection has 17.
    depth: "QUERY_MAX_DEPTH", 24 in 4..=64, "levels that a document selects once its fragments are expanded";
    /// Relay gives many fields names of their own.
    aliases: "QUERY_MAX_ALIASES", 50 in 0..=1000, "aliases of a document once its fragments are expanded, __typename's too";
    /// No client's compiler writes any.
    repeats: "QUERY_MAX_REPEATS", 10 in 0..=1000, "fields that a document selects beside themselves, __typename too";
    /// Clients put one or two.
    directives: "QUERY_MAX_DIRECTIVES", 8 in 2..=50, "directives at one place of a document";
    /// Fifty drops with all that belongs to them have some twenty thousand; holds of drops of holds grow by fifty with
    /// each turn.
    cost: "QUERY_MAX_COST", 25000 in 1000..=1000000, "fields of an answer, every list at its fullest";
    /// A page has a handful.
    socket_operations: "SOCKET_MAX_OPERATIONS", 32 in 1..=1000, "operations under way on one WebSocket";
    /// More are not faster, and hold the drop's lock longer.
    batch: "STOCK_MAX_BATCH", 128 in 1..=1024, "reservations, purchases and cancellations of one drop in one transaction";
    /// Each is a file, of which a process may have so many. A browser has one socket and six others at most.
    connections_per_address: "CONNECTIONS_PER_ADDRESS", 4000 in 1..=1000000, "connections open from one address, WebSockets apart";
    /// A household, an office or a mobile operator's gateway has one address (or IPv6 network of 64 bits) for many.
    streams_per_address: "STREAMS_PER_ADDRESS", 1000 in 1..=1000000, "WebSockets and streams open from one address";
    /// Eight hundred pages of ten drops a second that are in no memory, or some thousands of smaller queries.
    read_time_per_address: "READ_TIME_PER_ADDRESS", 250 in 1..=100000, "milliseconds of a processor a second that queries and updates for one address may take, ten seconds' worth at once";
    /// A school's network has one address too; a guesser has many.
    signins_per_address: "SIGNINS_PER_ADDRESS", 60 in 1..=1000000, "sign-ins and sign-ups a minute from one address";
    /// Whoever has signed in from an address before has as many there, whatever others do.
    wrong_passwords: "WRONG_PASSWORDS", 10 in 1..=1000000, "wrong passwords for one account in ten minutes";
    /// OWASP's password storage cheat sheet: argon2id with 19 MiB and two passes, or stronger. A hash that is weaker is
    /// made anew when its password is next shown.
    hash_memory_kib: "ARGON2_MEMORY_KIB", 19456 in 19456..=1048576, "KiB of memory to hash a password";
    hash_passes: "ARGON2_PASSES", 2 in 2..=20, "passes over that memory";
    /// Somebody who clicks once a second for a minute.
    reserves_per_buyer: "RESERVES_PER_BUYER", 60 in 1..=1000000, "calls of reserve a minute by one buyer";
    /// Who reserves and gives back in turn keeps a pair from all others.
    cancels_per_buyer: "CANCELS_PER_BUYER", 10 in 1..=1000000, "calls of cancelReservation a minute by one buyer";
}

impl Default for Limits {
    fn default() -> Self {
        Self::read(|limit| limit.default)
    }
}
