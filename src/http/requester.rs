//! Who sends operations, over a connection that stays open or in a request: what they may have executed, and when.

use std::{sync::Arc, time::Duration};

use async_graphql::{Request, parser::types::OperationType};
use axum::http::request::Parts;
use futures_util::{FutureExt as _, StreamExt as _, future, stream};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::{
    Site, answer, credentials,
    operation::{Event, Started, by_itself},
};
use crate::{
    client::Client,
    graphql::{self, Admitted, Answer, ApiError, Credentials, json},
    read_time::{Payment, ReadTime},
};

/// A client that has no time left is kept waiting for so long before it is refused: told at once, one that does not heed it
/// would ask thousands of times a second.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// Who sends an operation.
#[derive(Clone)]
pub(super) struct Requester {
    pub(super) site: Site,
    pub(super) credentials: Credentials,
    pub(super) client: Client,
}

/// An operation whose turn it is.
pub(super) enum Ready {
    /// With the time of a processor that it is executed in.
    Query(Admitted, Payment),
    Mutation(Admitted),
    Subscription(Admitted),
}

impl Ready {
    pub(super) fn admitted(&self) -> &Admitted {
        let (Self::Query(admitted, _) | Self::Mutation(admitted) | Self::Subscription(admitted)) = self;
        admitted
    }
}

impl Requester {
    /// Whoever sent this.
    pub(super) fn of(site: &Site, parts: &Parts) -> Self {
        let credentials = credentials::from_headers(&site.app.accounts, &parts.headers);
        Self { site: site.clone(), credentials, client: site.client(parts) }
    }

    /// Reads a request's document, and waits until there is time for it where it is a query, or was new and is refused.
    ///
    /// # Errors
    /// The gate's, or no time is left.
    pub(super) async fn admit(&self, request: Request) -> Result<Ready, ApiError> {
        let payer = self.payer();
        let is_new = !self.site.gate.knows(&request.query);
        let mut payment = None;
        if is_new && !may_mutate(&request) {
            payment = Some(wait_for_time(&payer).await?);
        }
        let admitted = self.read(&payer, request, is_new).await;
        let waits = match &admitted {
            Ok(admitted) => admitted.kind == OperationType::Query,
            Err(_) => is_new,
        };
        let payment = match payment {
            None if waits => wait_for_time(&payer).await?,
            None => payer.pay_later(),
            Some(payment) => payment,
        };
        let admitted = admitted?;
        Ok(match admitted.kind {
            OperationType::Query => Ready::Query(admitted, payment),
            OperationType::Mutation => Ready::Mutation(admitted),
            OperationType::Subscription => Ready::Subscription(admitted),
        })
    }

    /// A document that nobody has sent before may take as long to read as a query to execute, and is read in the same place:
    /// what sells does not wait for it.
    async fn read(&self, payer: &ReadTime, request: Request, is_new: bool) -> Result<Admitted, ApiError> {
        let (site, credentials) = (self.site.clone(), self.credentials);
        if !is_new {
            return site.gate.admit(request, &credentials);
        }
        let read = payer.pay_later().pay_for(async move { site.gate.admit(request, &credentials) });
        let read = by_itself(&self.site.readers, read).await;
        read.unwrap_or_else(|| Err(ApiError::internal("a document could not be read")))
    }

    /// Executes a query or mutation.
    pub(super) async fn execute(&self, admitted: Admitted) -> Answer {
        graphql::execute(&self.site.schema, admitted, &self.site.app, self.credentials, self.client).await
    }

    /// Starts an operation. `answers` bounds how many queries and mutations are executed before the answers to earlier ones
    /// are taken.
    pub(super) fn start(&self, ready: Ready, answers: &Arc<Semaphore>) -> Started {
        match ready {
            Ready::Query(admitted, payment) => {
                self.start_query(admitted, future::ready(Ok(payment)), answers)
            }
            Ready::Mutation(admitted) => self.start_mutation(admitted, answers),
            Ready::Subscription(admitted) => self.start_subscription(admitted),
        }
    }

    /// Reads a request's document and starts it where others would wait too, on one connection for many operations: whatever
    /// has to wait for time does so when it has a place among `answers`.
    pub(super) async fn start_at_once(&self, request: Request, answers: &Arc<Semaphore>) -> Started {
        let payer = self.payer();
        let is_new = !self.site.gate.knows(&request.query);
        if is_new
            && !may_mutate(&request)
            && let Err(retry_after) = payer.is_left()
        {
            return Started::refused(ApiError::RateLimited { retry_after });
        }
        match self.read(&payer, request, is_new).await {
            Ok(admitted) => match admitted.kind {
                OperationType::Query => {
                    self.start_query(admitted, async move { wait_for_time(&payer).await }, answers)
                }
                OperationType::Mutation => self.start_mutation(admitted, answers),
                OperationType::Subscription => self.start_subscription(admitted),
            },
            // To read it took time as well.
            Err(error) if is_new => Started::once(answers, async move {
                let no_time = wait_for_time(&payer).await.err();
                Some(Event::Error(no_time.unwrap_or(error).into_response().errors))
            }),
            Err(error) => Started::refused(error),
        }
    }

    fn start_query(
        &self,
        admitted: Admitted,
        payment: impl Future<Output = Result<Payment, ApiError>> + Send + 'static,
        answers: &Arc<Semaphore>,
    ) -> Started {
        let this = self.clone();
        Started::once(answers, async move {
            match payment.await {
                Ok(payment) => {
                    let readers = this.site.readers.clone();
                    by_itself(&readers, payment.pay_for(this.into_event(admitted))).await
                }
                Err(error) => Some(Event::Error(error.into_response().errors)),
            }
        })
    }

    fn start_mutation(&self, admitted: Admitted, answers: &Arc<Semaphore>) -> Started {
        let this = self.clone();
        Started::once(answers, async move {
            let readers = this.site.readers.clone();
            by_itself(&readers, this.into_event(admitted)).await
        })
    }

    fn start_subscription(&self, admitted: Admitted) -> Started {
        let (site, credentials, payer) = (self.site.clone(), self.credentials, self.payer());
        let subscribed = by_itself(&self.site.readers, async move {
            // It may wait, but is not refused: nobody asks again for a page that was not told.
            drop(wait_for_time(&payer).await);
            let payment = payer.pay_later();
            match payment.pay_for(site.fan_out.subscribe(admitted, credentials, payer)).await {
                Ok(payloads) => payloads.map(Event::Next).boxed(),
                Err(errors) => stream::iter([Event::Error(errors)]).boxed(),
            }
        });
        let events =
            subscribed.map(|events| events.unwrap_or_else(|| stream::iter([Event::broken()]).boxed()));
        // An error is the last word of its operation.
        Started::lasting(events.flatten_stream().chain(stream::iter([Event::Complete])))
    }

    async fn into_event(self, admitted: Admitted) -> Event {
        let response = self.execute(admitted).await.response;
        match answer::was_refused(&response) {
            true => Event::Error(response.errors),
            false => Event::Next(json(&response).into()),
        }
    }

    /// Whether they showed a token that was good.
    pub(super) fn is_signed_in(&self) -> bool {
        matches!(self.credentials, Credentials::SignedIn(_))
    }

    /// Whether their token has run out, or its session ended, since they showed it.
    pub(super) fn was_signed_out(&self) -> bool {
        match &self.credentials {
            Credentials::SignedIn(caller) => !self.site.app.accounts.session_lives(caller),
            Credentials::Anonymous | Credentials::Rejected => false,
        }
    }

    fn payer(&self) -> ReadTime {
        self.site.read_times.of(self.client)
    }
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
