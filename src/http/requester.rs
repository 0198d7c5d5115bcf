//! The sender of operations, over any transport: which are admitted, when they run, and where.

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

/// How long a client without read time left waits before it is refused. If it were refused at once, one that ignores
/// `retryAfterMs` would retry thousands of times a second.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// The sender of an operation.
#[derive(Clone)]
pub(super) struct Requester {
    pub(super) site: Site,
    pub(super) credentials: Credentials,
    pub(super) client: Client,
}

/// An admitted operation that may run now.
pub(super) enum Ready {
    /// With the payment for its CPU time.
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
    /// Returns the sender of a request.
    pub(super) fn of(site: &Site, parts: &Parts) -> Self {
        let credentials = credentials::from_headers(&site.app.accounts, &parts.headers);
        Self { site: site.clone(), credentials, client: site.client(parts) }
    }

    /// Admits a request's document. Waits for read time if it is a query, or a new document that is refused.
    ///
    /// # Errors
    /// The gate's, or `RateLimited` if no read time is left.
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

    /// Admits the document. To read a new one may take as long as to execute a query, so that runs on the readers'
    /// runtime, where it does not delay sales.
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

    /// Starts an operation. `answers` bounds how many queries and mutations run, or have answers that are not read yet.
    pub(super) fn start(&self, ready: Ready, answers: &Arc<Semaphore>) -> Started {
        match ready {
            Ready::Query(admitted, payment) => {
                self.start_query(admitted, future::ready(Ok(payment)), answers)
            }
            Ready::Mutation(admitted) => self.start_mutation(admitted, answers),
            Ready::Subscription(admitted) => self.start_subscription(admitted),
        }
    }

    /// Admits a request and starts it at once, for a connection whose other operations must not wait. An operation that
    /// has to wait for read time does so once it has a permit of `answers`.
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
            // Reading the document took time as well.
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
            // It may wait but is not refused: a page that missed its subscription would not ask again.
            drop(wait_for_time(&payer).await);
            let payment = payer.pay_later();
            match payment.pay_for(site.fan_out.subscribe(admitted, credentials, payer)).await {
                Ok(payloads) => payloads.map(Event::Next).boxed(),
                Err(errors) => stream::iter([Event::Error(errors)]).boxed(),
            }
        });
        let events =
            subscribed.map(|events| events.unwrap_or_else(|| stream::iter([Event::broken()]).boxed()));
        // An error ends its operation.
        Started::lasting(events.flatten_stream().chain(stream::iter([Event::Complete])))
    }

    async fn into_event(self, admitted: Admitted) -> Event {
        let response = self.execute(admitted).await.response;
        match answer::was_refused(&response) {
            true => Event::Error(response.errors),
            false => Event::Next(json(&response).into()),
        }
    }

    /// Returns whether the sender has shown a valid token.
    pub(super) fn is_signed_in(&self) -> bool {
        matches!(self.credentials, Credentials::SignedIn(_))
    }

    /// Returns whether the sender's token has expired, or its session ended, since it was shown.
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

/// Returns whether the document may contain a mutation, which never waits. Without that word it has none.
fn may_mutate(request: &Request) -> bool {
    request.query.contains("mutation")
}

/// Waits until the client has read time left, and refuses it if that takes too long.
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
