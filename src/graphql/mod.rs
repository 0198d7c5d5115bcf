//! The API. One file per object type; the same noun names the file on each floor below.
//!
//! A resolver asks who calls, reads its input, makes one call to a service, and maps the answer. No diesel here, and
//! no rule: what may be reserved is `stock`'s to say.

mod date_time;
mod drop;
mod error;
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
mod session;
mod stock_update;
mod subscription;
mod user;
mod viewer;

use async_graphql::SDLExportOptions;

pub use error::{ApiError, finish};
pub use gate::{Admitted, admit};
pub use request::Credentials;

use crate::app::App;

/// The executable schema.
pub type Schema = async_graphql::Schema<query::Query, mutation::Mutation, subscription::Subscription>;

/// The schema without limits of its own: [`admit`] stands before it.
pub fn schema(introspection: bool) -> Schema {
    let mut builder = Schema::build(query::Query, mutation::Mutation::default(), subscription::Subscription)
        .register_output_type::<mutation::UserError>();
    if !introspection {
        builder = builder.disable_introspection().disable_suggestions();
    }
    builder.finish()
}

/// The schema in its definition language, as `schema.graphql` has it.
pub fn sdl() -> String {
    schema(true).sdl_with_options(SDLExportOptions::new().include_specified_by())
}

/// Puts into a request what its resolvers need: the services, who calls, and loaders of its own.
pub fn prepare(
    request: async_graphql::Request,
    app: &App,
    credentials: Credentials,
) -> async_graphql::Request {
    request.data(request::RequestContext::new(app, credentials))
}
