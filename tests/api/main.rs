//! The whole product against real PostgreSQL, in one binary.
//!
//! Each test drives a server of its own on a database of its own, and on its way out the stock law is checked. Nobody
//! sleeps to be on time: deadlines are reached by ageing rows, or by holds of a second that are waited for, and races are
//! brought about by holding a lock.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails here should fail here")]

mod harness;

mod accounts;
mod admission;
mod attempts;
mod audit;
mod authorisation;
mod batches;
mod bus;
mod drops;
mod expected;
mod expiry;
mod feed;
mod floors;
mod gate;
mod hang_ups;
mod http;
mod kept;
mod least_rights;
mod loaders;
mod memory;
mod migrations;
mod network;
mod nulls;
mod order;
mod plans;
mod program;
#[path = "../support/proxy.rs"]
mod proxy;
mod purchase;
mod read_time;
mod reserve;
mod round_trips;
mod scanner;
mod schema;
#[path = "../support/shoe.rs"]
mod shoe;
mod socket;
mod streams;
mod tls;
#[path = "../support/token.rs"]
mod token;
#[path = "../support/watchdog.rs"]
mod watchdog;
