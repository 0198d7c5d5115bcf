//! How much time of a processor each client's queries may take.
//!
//! What an answer may cost is bounded, but not how often somebody asks for one: in words of their own each time, so that
//! nothing is in memory, one client could have all that reads. Time is what others go without then, so time is what is
//! counted, and not fields or requests.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};

use crate::{client::Client, rates::Rates};

/// A client may use up at once what it has in this time: a page that opens, an office that comes back from lunch.
const AT_ONCE: u32 = 10;

/// Microseconds that a query takes in advance, and gets back what it does not use: what many begin at once is bounded by
/// what is left.
const IN_ADVANCE: u32 = 2_000;

/// What all clients have left.
#[derive(Clone)]
pub struct ReadTimes(Arc<Rates<Client>>);

impl ReadTimes {
    /// For each so many milliseconds a second.
    pub fn new(millis: usize) -> Self {
        let micros = millis.saturating_mul(1_000 * AT_ONCE as usize);
        Self(Arc::new(Rates::new(micros, Duration::from_secs(AT_ONCE.into()))))
    }

    /// What `client` has left.
    pub fn of(&self, client: Client) -> ReadTime {
        ReadTime { all: self.clone(), client }
    }
}

/// What one client has left.
#[derive(Clone)]
pub struct ReadTime {
    all: ReadTimes,
    client: Client,
}

impl ReadTime {
    /// Whether there is any.
    ///
    /// # Errors
    /// How long until there is.
    pub fn is_left(&self) -> Result<(), Duration> {
        self.all.0.wait(&self.client)
    }

    /// Takes something in advance.
    ///
    /// # Errors
    /// There is none left: how long until there is.
    pub fn pay_in_advance(&self) -> Result<Payment, Duration> {
        self.all.0.take_many(self.client, IN_ADVANCE)?;
        Ok(Payment { by: self.clone(), in_advance: IN_ADVANCE })
    }

    /// Takes what is used when it is used, there or not.
    pub fn pay_later(&self) -> Payment {
        Payment { by: self.clone(), in_advance: 0 }
    }
}

/// How a client pays for something.
pub struct Payment {
    by: ReadTime,
    /// Microseconds that are taken and not used yet.
    in_advance: u32,
}

impl Payment {
    /// The same work, paid for with the time that it takes of a processor. What it waits costs nothing.
    pub fn pay_for<W: Future>(self, work: W) -> impl Future<Output = W::Output> {
        let mut payment = self;
        async move {
            let mut work = pin!(work);
            poll_fn(|context| {
                let began = processor_time();
                let polled = work.as_mut().poll(context);
                let took = processor_time().saturating_sub(began);
                payment.take(took.as_micros().try_into().unwrap_or(u32::MAX));
                polled
            })
            .await
        }
    }

    fn take(&mut self, micros: u32) {
        let covered = micros.min(self.in_advance);
        self.in_advance -= covered;
        if micros > covered {
            self.by.all.0.spend(self.by.client, micros - covered);
        }
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        if self.in_advance > 0 {
            self.by.all.0.give_back(&self.by.client, self.in_advance);
        }
    }
}

/// What this thread has had of a processor. Not the time of day: where others are at work too it would count theirs.
fn processor_time() -> Duration {
    match clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
        Ok(time) => time.into(),
        Err(error) => unreachable!("every thread has a clock of its own: {error}"),
    }
}
