//! The backend of a limited sneaker release: a GraphQL API that never oversells, releases expired holds on time and
//! pushes stock changes to every open page.
//!
//! `ARCHITECTURE.md` has the map.

pub mod accounts;
pub mod admission;
pub mod app;
pub mod bus;
pub mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod db;
pub mod drops;
pub mod feed;
pub mod graphql;
pub mod http;
pub mod ids;
pub mod page;
pub mod rates;
pub mod read_time;
pub mod stock;
pub mod telemetry;
pub mod text;
