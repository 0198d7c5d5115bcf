//! How often a batch waits for PostgreSQL. On one thread, so that what is sent together arrives together.

use sneaker_drop::{ids::UserId, stock::Reserve};

use crate::harness::{at_once, drive_still};

/// Where it finds the drop as the batch before has left it.
#[tokio::test]
async fn a_batch_of_any_size_takes_one_round_trip() {
    drive_still(async |app| {
        let network = app.network().await;
        let server = app.still_second_behind(&network).await;
        let stock = &server.app.stock;
        let drop = app.drop(&[("US 9", 200), ("US 10", 200)]).await;
        let reserve_of = async |drop, size: &str| {
            let (user, size) = (UserId::new(), Some(size.to_owned()));
            let request = Reserve { drop_id: drop, size, idempotency_key: None, admission: None };
            (user, stock.reserve(user, request).await.unwrap().reservation.unwrap().id)
        };
        let reserve = async |size: &str| reserve_of(drop, size).await;
        // What each statement costs the first time: one for the names of types, one to prepare it.
        let (first, second) = (reserve("US 9").await, reserve("US 9").await);
        stock.purchase(first.0, first.1).await.unwrap();
        let (cancelled, _) = tokio::join!(stock.cancel_reservation(second.0, second.1), reserve("US 9"));
        cancelled.unwrap();

        let before = network.turns();
        reserve("US 9").await;
        assert_eq!(network.turns() - before, 1, "a lone reserve");

        let before = network.turns();
        let held = at_once((0..60).map(|n| reserve(if n % 2 == 0 { "US 9" } else { "US 10" }))).await;
        assert_eq!(network.turns() - before, 1, "sixty reserves");

        let before = network.turns();
        let (buy, give_back) = held.split_at(30);
        let purchases = at_once(buy.iter().map(|(user, id)| stock.purchase(*user, *id)));
        let cancels = at_once(give_back.iter().map(|(user, id)| stock.cancel_reservation(*user, *id)));
        let reserves = at_once((0..30).map(|_| reserve("US 10")));
        let (purchases, cancels, _) = tokio::join!(purchases, cancels, reserves);
        assert!(purchases.into_iter().all(|answer| answer.unwrap().refusal.is_none()));
        assert!(cancels.into_iter().all(|answer| answer.unwrap().refusal.is_none()));
        assert_eq!(network.turns() - before, 1, "purchases, cancels and reserves together");

        // Nothing that a batch without a look could take for true: another server changes the drop between.
        let before = network.turns();
        app.hold(&app.buyer().await, drop, "US 9").await;
        let failed = reserve("US 9").await;
        assert_eq!(network.turns() - before, 1 + 2, "one that expected too much, and a look");
        for _ in 0..2 {
            app.hold(&app.buyer().await, drop, "US 9").await;
            let before = network.turns();
            reserve("US 9").await;
            assert_eq!(network.turns() - before, 2, "beside others it is not tried again");
        }
        stock.cancel_reservation(failed.0, failed.1).await.unwrap();
        let before = network.turns();
        reserve("US 9").await;
        assert_eq!(network.turns() - before, 1, "until they have left it alone");

        // Of this drop every pair was held before.
        let drop = app.drop(&[("US 9", 1)]).await;
        let held = reserve_of(drop, "US 9").await;
        // Before the next batch it is read who has holds, for nothing is left.
        stock.cancel_reservation(UserId::new(), held.1).await.unwrap();
        let before = network.turns();
        let (given_back, taken) =
            tokio::join!(stock.cancel_reservation(held.0, held.1), reserve_of(drop, "US 9"));
        assert!(given_back.unwrap().refusal.is_none());
        assert_eq!(network.turns() - before, 1, "a pair that is given back and held anew");
        assert_eq!(app.counts(drop).await, [0, 1, 0]);

        stock.cancel_reservation(taken.0, taken.1).await.unwrap();
        let before = network.turns();
        let taken = reserve_of(drop, "US 9").await;
        assert_eq!(network.turns() - before, 1, "one that was given back before");

        app.app.stock.cancel_reservation(taken.0, taken.1).await.unwrap();
        // Here it is seen that there is one again, and not which.
        stock.cancel_reservation(UserId::new(), taken.1).await.unwrap();
        let before = network.turns();
        reserve_of(drop, "US 9").await;
        assert!(
            network.turns() - before > 2,
            "one that was given back through another server has to be found"
        );
        server.stop().await;
    })
    .await;
}
