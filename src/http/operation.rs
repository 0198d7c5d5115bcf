//! One operation on a transport with many results: a query or mutation gives one, a subscription many.

use async_graphql::{Response, ServerError, Value, parser::types::OperationType};
use futures_util::{StreamExt as _, stream, stream::BoxStream};

use crate::{
    graphql::{self, Admitted, ApiError, Credentials},
    http::Site,
};

/// What an operation has to say.
pub(super) enum Event {
    /// A result.
    Next(Response),
    /// It could not be executed.
    Error(Vec<ServerError>),
    /// It is done.
    Complete,
}

/// What an operation says, in order.
pub(super) type Events = BoxStream<'static, Event>;

/// Starts an operation that was admitted, or says why it was not.
pub(super) fn start(site: &Site, credentials: Credentials, admitted: Result<Admitted, ApiError>) -> Events {
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return stream::iter([Event::Error(error.into_response().errors)]).boxed(),
    };
    let kind = admitted.kind;
    let results = match kind {
        OperationType::Subscription => {
            graphql::subscribe(&site.schema, admitted, &site.app, credentials).boxed()
        }
        OperationType::Query | OperationType::Mutation => {
            let site = site.clone();
            let executed = async move {
                graphql::execute(&site.schema, admitted, &site.app, credentials).await.response
            };
            stream::once(executed).boxed()
        }
    };
    let results = results.map(move |response| match was_refused(&response, kind) {
        true => Event::Error(response.errors),
        false => Event::Next(response),
    });
    // An error is the last word of its operation.
    results.chain(stream::iter([Event::Complete])).boxed()
}

/// Whether this is no result but the reason why there is none: an invalid operation, or a subscription to something
/// that is not there.
fn was_refused(response: &Response, kind: OperationType) -> bool {
    let nothing = response.data == Value::Null && !response.errors.is_empty();
    nothing
        && (kind == OperationType::Subscription || response.errors.iter().all(|error| error.path.is_empty()))
}
