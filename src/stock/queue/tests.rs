//! Queues over an unreachable PostgreSQL: when they accept, refuse and close.

use futures_util::{FutureExt as _, future::join_all};

use super::*;
use crate::{
    bus::{Bus, InProcess},
    config::DatabaseConfig,
    ids::{HoldId, UserId},
};

fn queues(idle: Duration) -> Arc<Queues> {
    let metrics = Metrics::default();
    let nowhere =
        DatabaseConfig { url: Some("postgres://127.0.0.1:1/none".into()), direct_url: None, pool_size: 2 };
    let db = Database::new(&nowhere, &metrics).unwrap();
    let drops = Drops::new(&db);
    let feed = Feed::new(&drops, &Bus::over(InProcess::default(), &metrics), &metrics);
    let mut queues = Queues::new(db, drops, feed, metrics, 64);
    queues.idle = idle;
    Arc::new(queues)
}

fn purchase() -> Operation {
    Operation::Purchase { user: UserId::new(), hold_id: HoldId::new() }
}

/// Enqueues an operation that has waited for so long. `None` if the queue is full.
fn put(
    queues: &Arc<Queues>,
    drop_id: DropId,
    waited: Duration,
) -> Option<oneshot::Receiver<Result<Answer<Refusal>, StockError>>> {
    let (reply, answer) = oneshot::channel();
    let message = Message::Do { operation: purchase(), reply, arrived: Instant::now() - waited };
    queues.send(drop_id, message).then_some(answer)
}

#[tokio::test]
async fn a_full_queue_says_so_at_once_and_answers_all_that_are_in_it() {
    let (queues, drop_id) = (queues(IDLE), DropId::new());
    let mut waiting = Vec::new();
    while let Some(answer) = put(&queues, drop_id, 2 * job::LONGEST_WAIT) {
        waiting.push(answer);
    }
    assert_eq!(waiting.len(), LONGEST_QUEUE);
    let refused = queues.run(drop_id, purchase()).now_or_never().expect("an answer without any wait");
    assert!(matches!(refused, Err(StockError::Overloaded { retry_after }) if !retry_after.is_zero()));
    for answer in join_all(waiting).await {
        let refused = answer.expect("an answer for everybody");
        assert!(matches!(refused, Err(StockError::Overloaded { .. })), "too late to be begun");
    }
    assert!(put(&queues, drop_id, Duration::ZERO).is_some(), "there is room again");
}

#[tokio::test]
async fn a_queue_waits_for_more_and_ends_when_nothing_comes() {
    // Short enough to begin, and soon too long to be retried.
    let waited = job::LONGEST_WAIT - Duration::from_millis(500);
    for (idle, is_open) in [(IDLE, true), (Duration::ZERO, false)] {
        let (queues, drop_id) = (queues(idle), DropId::new());
        let answer = put(&queues, drop_id, waited).unwrap();
        assert_eq!((queues.lock().len(), queues.metrics.stock_queues.get()), (1, 1));
        assert!(matches!(answer.await, Ok(Err(StockError::Unavailable))));
        // The task runs until it waits or ends.
        while !is_open && !queues.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(queues.lock().len(), usize::from(is_open));
        assert_eq!(queues.metrics.stock_queues.get(), i64::from(is_open));
        assert!(put(&queues, drop_id, waited).is_some(), "and takes more, or begins anew");
    }
}
