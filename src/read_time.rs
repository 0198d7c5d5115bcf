//! Limits the CPU time of each client's queries.
//!
//! The cost of an answer is bounded, but not how often a client asks for one. With a new document each time, which no
//! cache has, one client could take all threads that read. CPU time is what others lack then, so it is what is
//! counted, and not fields or requests.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};

use crate::{client::Client, rates::Rates};

/// Seconds of its allowance that a client may use at once: for a page that opens, or an office back from lunch.
const AT_ONCE: u32 = 10;

/// Microseconds that a query takes in advance; what it does not use is given back. So the allowance left bounds how
/// many queries begin at once.
const IN_ADVANCE: u32 = 2_000;

/// The CPU time allowances of all clients.
#[derive(Clone)]
pub struct ReadTimes(Arc<Rates<Client>>);

impl ReadTimes {
    /// Allows each client `millis` milliseconds of CPU time per second.
    pub fn new(millis: usize) -> Self {
        let micros = millis.saturating_mul(1_000 * AT_ONCE as usize);
        Self(Arc::new(Rates::new(micros, Duration::from_secs(AT_ONCE.into()))))
    }

    /// Returns the allowance of `client`.
    pub fn of(&self, client: Client) -> ReadTime {
        ReadTime { all: self.clone(), client }
    }
}

/// The CPU time allowance of one client.
#[derive(Clone)]
pub struct ReadTime {
    all: ReadTimes,
    client: Client,
}

impl ReadTime {
    /// Checks whether any is left.
    ///
    /// # Errors
    /// There is none: the time until there is some.
    pub fn is_left(&self) -> Result<(), Duration> {
        self.all.0.wait(&self.client)
    }

    /// Takes a share in advance.
    ///
    /// # Errors
    /// There is too little: the time until there is enough.
    pub fn pay_in_advance(&self) -> Result<Payment, Duration> {
        self.all.0.take_many(self.client, IN_ADVANCE)?;
        Ok(Payment { by: self.clone(), in_advance: IN_ADVANCE })
    }

    /// Takes time as it is used, even if none is left.
    pub fn pay_later(&self) -> Payment {
        Payment { by: self.clone(), in_advance: 0 }
    }
}

/// Charges a client for some work.
pub struct Payment {
    by: ReadTime,
    /// Microseconds taken in advance and not used yet.
    in_advance: u32,
}

impl Payment {
    /// Runs the work and charges the CPU time of its polls. Waiting is free.
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

/// Returns the CPU time of this thread. Wall time would include the time of other threads.
fn processor_time() -> Duration {
    match clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
        Ok(time) => time.into(),
        Err(error) => unreachable!("every thread has a clock of its own: {error}"),
    }
}
