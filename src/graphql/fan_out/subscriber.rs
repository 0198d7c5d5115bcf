//! What one subscriber is sent: each update once, and a failed one again once a retry succeeds.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::time::{Instant, timeout_at};

use super::{Payload, Rendered, SharedSubscription};
use crate::{drops::DropStatus, feed::Shown, ids::DropId, read_time::ReadTime};

/// Delay of the first retry after a failure; doubles after each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(8);

pub(super) struct Subscriber {
    subscription: Arc<SharedSubscription>,
    payer: ReadTime,
    updates: BoxStream<'static, Shown>,
    /// Later states that were sent in place of earlier ones; `updates` still has to yield them.
    ahead: Vec<(DropId, i32, DropStatus)>,
    /// Boxed, because few subscribers have one.
    retry: Option<Box<Retry>>,
}

/// States that were sent with something missing. If the drop does not change again, only a retry supplies it.
struct Retry {
    states: VecDeque<Shown>,
    at: Instant,
    wait: Duration,
}

impl Subscriber {
    pub(super) fn new(
        subscription: Arc<SharedSubscription>,
        payer: ReadTime,
        updates: BoxStream<'static, Shown>,
    ) -> Self {
        Self { subscription, payer, updates, ahead: Vec::new(), retry: None }
    }

    pub(super) fn payloads(self) -> impl Stream<Item = Payload> {
        stream::unfold(self, async |mut subscriber| Some((subscriber.next().await?, subscriber)))
    }

    async fn next(&mut self) -> Option<Payload> {
        loop {
            let Some(retry) = &self.retry else {
                let shown = self.updates.next().await?;
                if let Some(payload) = self.tell(shown).await {
                    return Some(payload);
                }
                continue;
            };
            let told = match Box::pin(timeout_at(retry.at, self.updates.next())).await {
                Ok(shown) => self.tell(shown?).await,
                Err(_) => self.tell_again().await,
            };
            if told.is_some() {
                return told;
            }
        }
    }

    /// Returns the update to send. `None`: there is nothing to show, or it was already sent.
    async fn tell(&mut self, shown: Shown) -> Option<Payload> {
        let (id, version, status) = (shown.state.id, shown.state.version, shown.status);
        self.retry_no_more(id);
        if let Some(place) = self.ahead.iter().position(|(ahead, ..)| *ahead == id) {
            let (_, told_version, told_status) = *self.ahead.get(place)?;
            if (version, status) == (told_version, told_status) || version < told_version {
                return None;
            }
            self.ahead.swap_remove(place);
        }
        let rendered = self.render(&shown).await?;
        if rendered.may_heal {
            let retry = self.retry.get_or_insert_with(|| {
                let at = Instant::now() + FIRST_RETRY;
                Box::new(Retry { states: VecDeque::new(), at, wait: FIRST_RETRY })
            });
            retry.states.push_back(shown);
        }
        Some(rendered.payload)
    }

    /// Retries the first failed state. Returns the update only if that succeeded.
    async fn tell_again(&mut self) -> Option<Payload> {
        let shown = self.retry.as_ref()?.states.front()?.clone();
        let rendered = self.render(&shown).await;
        let retry = self.retry.as_mut()?;
        match rendered {
            Some(Rendered { may_heal: true, .. }) => {
                // Other drops get their turn too.
                retry.states.rotate_left(1);
                retry.wait = LAST_RETRY.min(retry.wait * 2);
                retry.at = Instant::now() + retry.wait;
                None
            }
            healed => {
                self.retry_no_more(shown.state.id);
                healed.map(|rendered| rendered.payload)
            }
        }
    }

    fn retry_no_more(&mut self, id: DropId) {
        if let Some(retry) = &mut self.retry {
            retry.states.retain(|shown| shown.state.id != id);
            if retry.states.is_empty() {
                self.retry = None;
            }
        }
    }

    async fn render(&mut self, shown: &Shown) -> Option<Rendered> {
        // Nearly always it is rendered already.
        if let Some(rendered) = self.subscription.find(shown) {
            return Some(rendered);
        }
        let rendered = Box::pin(self.subscription.render(&self.payer, shown.clone())).await?;
        // A failed one is sent again when it is its turn, because a retry would be of `shown`.
        if rendered.version > shown.state.version && !rendered.may_heal {
            self.ahead.push((shown.state.id, rendered.version, rendered.status));
        }
        Some(rendered)
    }
}
