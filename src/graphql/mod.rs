//! The GraphQL API. One file per object type; the same noun names the file on each floor below.
//!
//! A resolver identifies the caller, reads its input, makes one call to a service, and maps the answer. It contains no
//! diesel and no business rules: `stock` decides what may be reserved.

mod date_time;
mod drop;
mod error;
mod fan_out;
mod gate;
mod loaders;
mod money;
mod mutation;
mod node;
mod page;
mod purchase;
mod query;
mod request;
mod reservation;
mod response;
mod rounds;
mod session;
mod shape;
mod stock_update;
mod subscription;
mod user;
mod viewer;

use std::time::Duration;

use async_graphql::{
    Response, SDLExportOptions, SchemaBuilder, ValidationMode, parser::types::OperationType,
};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::Instant;

pub use error::ApiError;
pub use fan_out::{FanOut, Payload};
pub use gate::{Admitted, Gate};
pub use request::Credentials;

use crate::{
    app::App,
    client::Client,
    config::Limits,
    feed::{Feed, Generation},
};
use request::{FreshFor, Freshness};
use response::Executed;

type Executable = async_graphql::Schema<query::Query, mutation::Mutation, subscription::Subscription>;

/// The executable schema. Cloning is cheap.
#[derive(Clone)]
pub struct Schema {
    whole: Executable,
    /// Skips the rules that a document is known to satisfy: clients send the same few repeatedly, and validation is a
    /// fifth of a request's cost.
    known: Executable,
    /// Maximum cost of an answer.
    most_cost: usize,
}

/// Deadline of a query, whatever blocks below. PostgreSQL itself ends a statement after three seconds.
const READ_WITHIN: Duration = Duration::from_millis(3_500);
/// Deadline of a mutation, which may have waited in a queue first.
const WRITE_WITHIN: Duration = Duration::from_secs(8);

/// Builds the schema. It limits what an answer may cost; the [`Gate`] has already limited the size of the document.
pub fn schema(introspection: bool, limits: &Limits) -> Schema {
    let [whole, known] = [ValidationMode::Strict, ValidationMode::Fast].map(|mode| {
        let builder = builder().limit_complexity(limits.cost).validation_mode(mode);
        if introspection { builder } else { builder.disable_introspection().disable_suggestions() }.finish()
    });
    Schema { whole, known, most_cost: limits.cost }
}

fn builder() -> SchemaBuilder<query::Query, mutation::Mutation, subscription::Subscription> {
    Executable::build(query::Query, mutation::Mutation::default(), subscription::Subscription)
        .register_output_type::<mutation::UserError>()
}

/// Returns the schema in the schema definition language, as in `schema.graphql`.
pub fn sdl() -> String {
    builder().finish().sdl_with_options(SDLExportOptions::new().include_specified_by())
}

/// The result of a query or mutation.
pub struct Answer {
    /// The response for the caller.
    pub response: Response,
    /// How long the response is valid for any caller of the same request. `None`: only now, or only for this caller.
    pub good: Option<Validity>,
}

/// How long an answer is valid: while the open drops are unchanged, and until the clock changes what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    generation: Generation,
    until: Option<Instant>,
}

impl Validity {
    /// Returns whether the answer is out of date.
    pub fn is_over(&self, feed: &Feed) -> bool {
        feed.generation() != Some(self.generation) || self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// Executes a query or mutation. Its resolvers get the services, the caller, and their own loaders.
pub async fn execute(
    schema: &Schema,
    admitted: Admitted,
    app: &App,
    credentials: Credentials,
    client: Client,
) -> Answer {
    // Before anything is read: a change from here on makes the answer stale.
    let generation = app.feed.generation();
    let (loads, freshness) = (rounds::Queue::default(), Freshness::default());
    let Admitted { request, kind, document, is_surely_valid } = admitted;
    let executable = if is_surely_valid { &schema.known } else { &schema.whole };
    let context = request::RequestContext::new(app, credentials, &loads, &freshness).sent_by(client);
    let operation_name = request.operation_name.clone();
    let execution = rounds::finish(loads, executable.execute(request.data(context)).boxed());
    let patience = if kind == OperationType::Query { READ_WITHIN } else { WRITE_WITHIN };
    let response = match tokio::time::timeout(patience, execution).await {
        Ok((response, has_waited)) => {
            let executed = Executed {
                document: &document,
                operation_name: operation_name.as_deref(),
                most_cost: schema.most_cost,
                may_be_disordered: has_waited && kind == OperationType::Query,
            };
            response::finish(response, executed)
        }
        // A stock transaction continues in its own task; a read-only statement is safe to abandon.
        Err(_) => ApiError::Unavailable.into_response(),
    };
    if !is_surely_valid && response.is_ok() {
        document.note_valid();
    }
    let until = match freshness.told() {
        _ if kind != OperationType::Query || response.is_err() => return Answer { response, good: None },
        FreshFor::OnlyNow => return Answer { response, good: None },
        FreshFor::Until(moment) => Some(moment),
        FreshFor::ForEver => None,
    };
    let good = generation.map(|generation| Validity {
        until: until.into_iter().chain(generation.good_until()).min(),
        generation,
    });
    Answer { response, good }
}

/// Serializes an answer of the API to JSON.
pub fn json(answer: &impl Serialize) -> String {
    match serde_json::to_string(answer) {
        Ok(text) => text,
        Err(error) => unreachable!("an answer is always JSON: {error}"),
    }
}
