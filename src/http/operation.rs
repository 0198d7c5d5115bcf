//! One operation on a transport with many results: a query or mutation gives one, a subscription many.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_graphql::{Request, Response, ServerError, Value, parser::types::OperationType};
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    client::Client,
    graphql::{self, Admitted, ApiError, Credentials, Payload},
    http::Site,
    read_time::{Payment, ReadTime},
};

/// A client that has no time left is kept waiting for so long before it is refused: told at once, one that does not heed it
/// would ask thousands of times a second.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// What an operation has to say.
pub(super) enum Event {
    /// A result.
    Next(Payload),
    /// It could not be executed.
    Error(Vec<ServerError>),
    /// It is done.
    Complete,
}

/// An operation under way: what it says, in order.
pub(super) struct Started {
    events: BoxStream<'static, Event>,
    /// Whether it ends by itself, and soon: everything but a subscription. A server that stops waits for it.
    pub(super) ends: bool,
}

impl Stream for Started {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_next_unpin(context)
    }
}

/// Starts an operation that was admitted, or says why it was not. What it takes to execute it, connections to PostgreSQL and
/// turns at what others wait for too, is held by a task of its own: nobody else may have to wait until this client reads.
/// `answers` bounds how many queries and mutations are executed before the answers to earlier ones are taken.
pub(super) fn start(
    site: &Site,
    credentials: Credentials,
    client: Client,
    answers: &Arc<Semaphore>,
    admitted: Result<Admitted, ApiError>,
) -> Started {
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            let events = stream::iter([Event::Error(error.into_response().errors)]).boxed();
            return Started { events, ends: true };
        }
    };
    let (site, readers, payer) = (site.clone(), site.readers.clone(), site.read_times.of(client));
    if admitted.kind == OperationType::Subscription {
        let subscribed = by_itself(&readers, async move {
            // It may wait, but is not refused: nobody asks again for a page that was not told.
            drop(wait_for_time(&payer).await);
            let payment = payer.pay_later();
            match payment.pay_for(site.fan_out.subscribe(admitted, credentials, payer)).await {
                Ok(payloads) => payloads.map(Event::Next).boxed(),
                Err(errors) => stream::iter([Event::Error(errors)]).boxed(),
            }
        });
        let started = subscribed.map(|started| started.unwrap_or_else(|| stream::iter([broken()]).boxed()));
        // An error is the last word of its operation.
        let done = stream::iter([Event::Complete]);
        return Started { events: started.flatten_stream().chain(done).boxed(), ends: false };
    }
    let kind = admitted.kind;
    let executed = async move {
        let response =
            graphql::execute(&site.schema, admitted, &site.app, credentials, client).await.response;
        match was_refused(&response) {
            true => Event::Error(response.errors),
            false => Event::Next(graphql::json(&response).into()),
        }
    };
    let answers = answers.clone();
    let events = async move {
        // Held until all is told. It is never closed.
        let place = answers.acquire_owned().await;
        let event = match kind {
            OperationType::Query => match wait_for_time(&payer).await {
                Ok(payment) => by_itself(&readers, payment.pay_for(executed)).await,
                Err(error) => Some(Event::Error(error.into_response().errors)),
            },
            OperationType::Mutation | OperationType::Subscription => by_itself(&readers, executed).await,
        };
        let event = event.unwrap_or_else(broken);
        stream::iter([event, Event::Complete]).inspect(move |_| {
            let _ = &place;
        })
    };
    Started { events: events.flatten_stream().boxed(), ends: true }
}

/// Reads a request's document, and waits until `payer` has time where it is a query, which is executed for what was paid.
pub(super) async fn admit(
    site: &Site,
    payer: &ReadTime,
    request: Request,
    credentials: Credentials,
) -> Result<(Admitted, Option<Payment>), ApiError> {
    let (is_new, mut payment) = (!site.gate.knows(&request.query), None);
    if is_new && !may_mutate(&request) {
        payment = Some(wait_for_time(payer).await?);
    }
    let read = read(site, payer, request, credentials, is_new).await;
    let waits = match &read {
        Ok(admitted) => admitted.kind == OperationType::Query,
        Err(_) => is_new,
    };
    if waits && payment.is_none() {
        payment = Some(wait_for_time(payer).await?);
    }
    Ok((read?, payment))
}

/// The same where others would wait too, and without a wait: a query waits when it is its turn.
pub(super) async fn admit_at_once(
    site: &Site,
    payer: &ReadTime,
    request: Request,
    credentials: Credentials,
) -> Result<Admitted, ApiError> {
    let is_new = !site.gate.knows(&request.query);
    if is_new && !may_mutate(&request) {
        payer.is_left().map_err(|retry_after| ApiError::RateLimited { retry_after })?;
    }
    read(site, payer, request, credentials, is_new).await
}

/// A document that nobody has sent before may take as long to read as a query to execute, and is read in the same place:
/// what sells does not wait for it.
async fn read(
    site: &Site,
    payer: &ReadTime,
    request: Request,
    credentials: Credentials,
    is_new: bool,
) -> Result<Admitted, ApiError> {
    if !is_new {
        return site.gate.admit(request, &credentials);
    }
    let there = site.clone();
    let read = payer.pay_later().pay_for(async move { there.gate.admit(request, &credentials) });
    let read = by_itself(&site.readers, read).await;
    read.unwrap_or_else(|| Err(ApiError::internal("a document could not be read")))
}

/// Without that word no mutation is in it, and only those never wait.
fn may_mutate(request: &Request) -> bool {
    request.query.contains("mutation")
}

/// Who has no time left waits for it, and is refused where that takes long.
async fn wait_for_time(payer: &ReadTime) -> Result<Payment, ApiError> {
    let refused_at = Instant::now() + REFUSED_AFTER;
    loop {
        let retry_after = match payer.pay_in_advance() {
            Ok(payment) => return Ok(payment),
            Err(retry_after) => retry_after,
        };
        let now = Instant::now();
        if now >= refused_at {
            return Err(ApiError::RateLimited { retry_after });
        }
        sleep_until(refused_at.min(now + retry_after)).await;
    }
}

/// Starts a task on `runtime`, which ends with whoever waits for it. `None`: it panicked. The work itself is in the task
/// alone: what waits may be kept for as long as a subscription lasts.
pub(super) fn by_itself<W>(runtime: &Handle, work: W) -> impl Future<Output = Option<W::Output>> + use<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn_on(work, runtime);
    async move { task.join_next().await?.ok() }
}

fn broken() -> Event {
    Event::Error(ApiError::internal("an operation broke off").into_response().errors)
}

/// Whether this is no result but the reason why there is none: the operation is invalid.
fn was_refused(response: &Response) -> bool {
    let nothing = response.data == Value::Null && !response.errors.is_empty();
    nothing && response.errors.iter().all(|error| error.path.is_empty())
}
