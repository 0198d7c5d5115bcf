//! One operation on a socket: a query or mutation gives one result, a subscription many.

use async_graphql::{Request, Response, ServerError, Value, parser::types::OperationType};
use futures_util::{StreamExt as _, stream, stream::BoxStream};

use crate::{
    graphql::{self, Credentials},
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

/// Starts an operation under the same guard as over HTTP.
pub(super) fn start(site: &Site, credentials: Credentials, request: Request) -> Events {
    let admitted = match graphql::admit(request, &credentials) {
        Ok(admitted) => admitted,
        Err(error) => return stream::iter([Event::Error(error.into_response().errors)]).boxed(),
    };
    let kind = admitted.kind;
    let results =
        graphql::execute_stream(&site.schema, admitted, &site.app, credentials).map(move |response| {
            match was_refused(&response, kind) {
                true => Event::Error(response.errors),
                false => Event::Next(response),
            }
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
