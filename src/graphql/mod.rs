//! The API. One file per object type; the same noun names the file on each floor below.
//!
//! A resolver asks who calls, reads its input, makes one call to a service, and maps the answer. No diesel here, and
//! no rule: what may be reserved is `stock`'s to say.

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
    /// Leaves out the rules that a document was found to keep: a client sends the same few again and again, and to validate
    /// one is a fifth of what a request costs.
    known: Executable,
    /// Of an answer.
    most_cost: usize,
}

/// Nobody waits longer for an answer, whatever hangs below. PostgreSQL itself ends a statement after three seconds.
const READ_WITHIN: Duration = Duration::from_millis(3_500);
/// A mutation may have waited for its turn before.
const WRITE_WITHIN: Duration = Duration::from_secs(8);

/// The schema. It counts what a document asks for; how large the document is itself, the [`Gate`] has measured before.
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

/// The schema in its definition language, as `schema.graphql` has it.
pub fn sdl() -> String {
    builder().finish().sdl_with_options(SDLExportOptions::new().include_specified_by())
}

/// What came of a query or mutation.
pub struct Answer {
    /// For who asked.
    pub response: Response,
    /// How long it is right for whoever asks the same. `None`: only now, or only for who asked.
    pub good: Option<Validity>,
}

/// How long an answer is right: while the open drops stand where they stood, and until the clock changes what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    generation: Generation,
    until: Option<Instant>,
}

impl Validity {
    /// Whether it is over.
    pub fn is_over(&self, feed: &Feed) -> bool {
        feed.generation() != Some(self.generation) || self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// Executes a query or mutation. Its resolvers get the services, who calls, and loaders of their own.
pub async fn execute(
    schema: &Schema,
    admitted: Admitted,
    app: &App,
    credentials: Credentials,
    client: Client,
) -> Answer {
    // Before anything is read: what changes from here on makes the answer old.
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
        // A stock transaction goes on in its own task; a statement that only reads is safe to leave.
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

/// Anything that the API answers, as JSON.
pub fn json(answer: &impl Serialize) -> String {
    match serde_json::to_string(answer) {
        Ok(text) => text,
        Err(error) => unreachable!("an answer is always JSON: {error}"),
    }
}
