//! A batch that goes by what the one before left is right also where that is not so any more.

use futures_util::future::join_all;
use serde_json::json;
use sneaker_drop::{
    ids::UserId,
    stock::{ReservationStatus, Reserve, ReserveRefusal, Stock, StockError},
};

use crate::{
    harness::{HeldLock, codes, drive_still, eventually},
    shoe::shoe,
};

#[tokio::test(flavor = "multi_thread")]
async fn who_got_a_hold_through_another_server_is_no_new_buyer() {
    drive_still(async |app| {
        let server = app.still_second().await;
        let drop = app.drop_like(&[("ONE", 9)], |new| new.purchase_limit = 1).await;
        let [holder, quitter, first] = &app.buyers(3).await[..] else { unreachable!() };
        let held = server.hold(holder, drop, "ONE").await;
        let given_back = server.reserve(quitter, drop, None, Some("click")).await;
        server.cancel(quitter, given_back["reservation"]["id"].as_str().unwrap()).await;

        // Looks, and is alone from now on.
        app.hold(first, drop, "ONE").await;
        let more = app.reserve(holder, drop, None, Some("another")).await;
        assert_eq!(codes(&more), ["LIMIT_REACHED"]);
        assert_eq!(more["reservation"]["id"], held.as_str());
        let again = app.reserve(quitter, drop, None, Some("click")).await;
        assert_eq!(codes(&again), Vec::<&str>::new());
        assert_eq!(again["reservation"]["id"], given_back["reservation"]["id"]);
        assert_eq!(app.counts(drop).await, [7, 2, 0]);
        server.stop().await;
    })
    .await;
}

/// The counters are the same, and the version is not.
#[tokio::test]
async fn whose_hold_was_given_back_through_another_server_is_not_at_the_limit() {
    drive_still(async |app| {
        let server = app.still_second().await;
        let (here, there) = (&app.app.stock, &server.app.stock);
        let drop = app.drop_like(&[("ONE", 2)], |new| new.purchase_limit = 1).await;
        let reserve = async |stock: &Stock, user| {
            let request = Reserve { drop_id: drop, size: None, idempotency_key: None, admission: None };
            stock.reserve(user, request).await.unwrap()
        };
        let [first, second, third] = [UserId::new(), UserId::new(), UserId::new()];
        let held = reserve(here, first).await.reservation.unwrap().id;
        let given_back = reserve(here, second).await.reservation.unwrap().id;
        // Its queue is open then, and the two come to it together.
        assert!(there.cancel_reservation(UserId::new(), given_back).await.unwrap().refusal.is_some());
        let (cancelled, taken) =
            tokio::join!(there.cancel_reservation(second, given_back), reserve(there, third));
        assert_eq!((cancelled.unwrap().refusal, taken.refusal), (None, None));
        let (bought, refused) = tokio::join!(here.purchase(first, held), reserve(here, second));
        assert_eq!(bought.unwrap().refusal, None);
        assert_eq!(refused.refusal, Some(ReserveRefusal::AllHeld));
        server.stop().await;
    })
    .await;
}

/// As it is after the database's clock was set.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_lapsed_early_is_taken_back_and_not_bought() {
    drive_still(async |app| {
        let drop = app.drop(&[("ONE", 2)]).await;
        let [first, second, third] = &app.buyers(3).await[..] else { unreachable!() };
        let hold = app.hold(first, drop, "ONE").await;
        app.age_holds(drop, 61).await;
        assert_eq!(codes(&app.purchase(first, &hold).await), ["RESERVATION_EXPIRED"]);
        app.hold(second, drop, "ONE").await;
        app.age_holds(drop, 61).await;
        // Its batch did not look, and told of a deadline that is over: the next one takes the second's hold back at once.
        app.hold(third, drop, "ONE").await;
        eventually(async || app.counts(drop).await == [1, 1, 0]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waited_for_the_lock_is_not_dated_back() {
    drive_still(async |app| {
        let drop = app.drop(&[("ONE", 2)]).await;
        let [first, second] = &app.buyers(2).await[..] else { unreachable!() };
        app.hold(first, drop, "ONE").await;
        let lock = HeldLock::take(app, drop).await;
        app.sql("CREATE TABLE seen AS SELECT clock_timestamp() AS at LIMIT 0").await;
        let (reserved, ()) = tokio::join!(app.reserve(second, drop, Some("ONE"), None), async {
            app.wait_for_lock_waiters(1).await;
            app.sql("INSERT INTO seen SELECT clock_timestamp()").await;
            let long_ago =
                "SELECT count(*) AS count FROM seen WHERE clock_timestamp() > at + interval '100 ms'";
            app.wait_for_count(long_ago, 1).await;
            lock.release().await;
        });
        assert_eq!(reserved["userErrors"], json!([]));
        let later = "SELECT count(*) AS count FROM reservations, seen WHERE created_at > seen.at";
        assert_eq!(app.count(later).await, 1);
        app.sql("DROP TABLE seen").await;
    })
    .await;
}

/// Each of them believes again and again that it is alone.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_take_turns_keep_every_limit() {
    drive_still(async |app| {
        let server = app.still_second().await;
        let drop = app.drop_like(&[("ONE", 40), ("TWO", 40)], |new| new.purchase_limit = 2).await;
        let buyers: Vec<UserId> = (0..12).map(|_| UserId::new()).collect();
        let servers = [app, &server];
        for round in 0..8 {
            // Some alone, one after the other, and some at once.
            let stock = |turn: usize| &servers[turn % 2].app.stock;
            let size = |turn: usize| Some(if turn.is_multiple_of(3) { "TWO" } else { "ONE" }.to_owned());
            let reserve = async |turn: usize, user: UserId| {
                let request =
                    Reserve { drop_id: drop, size: size(turn), idempotency_key: None, admission: None };
                let answer = stock(turn).reserve(user, request).await.unwrap();
                assert!(matches!(answer.refusal, None | Some(ReserveRefusal::LimitReached)));
                answer.reservation.filter(|_| answer.refusal.is_none())
            };
            for (turn, user) in buyers.iter().enumerate().take(6) {
                if let Some(hold) = reserve(round + turn / 3, *user).await
                    && turn.is_multiple_of(2)
                {
                    let bought = stock(round + turn / 2).purchase(*user, hold.id).await.unwrap();
                    assert!(bought.refusal.is_none());
                    let status = bought.reservation.map(|reservation| reservation.status);
                    assert_eq!(status, Some(ReservationStatus::Purchased));
                }
            }
            join_all(buyers.iter().enumerate().map(|(turn, user)| reserve(turn, *user))).await;
        }
        assert_eq!(app.counts(drop).await.iter().sum::<i64>(), 80);
        let over = "SELECT count(*) AS count FROM (
                        SELECT FROM reservations WHERE status IN ('active', 'purchased')
                        GROUP BY user_id HAVING count(*) <> 2
                    ) AS buyer";
        assert_eq!(app.count(over).await, 0, "each has what one may have");
        server.stop().await;
    })
    .await;
}

/// All pairs were held before. Each server knows of those that came back through it, and the other gives them out.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_came_back_are_given_out_by_two_servers() {
    drive_still(async |app| {
        const PAIRS: i32 = 30;
        let server = app.still_second().await;
        let drop = app.drop(&[("ONE", PAIRS)]).await;
        let mut held = app.holds(drop, PAIRS).await;
        for round in 0..6 {
            // Two thirds come back, by two servers, who give them out again at once.
            let back = held.split_off(10);
            let give_back = back.iter().enumerate().map(|(index, (user, id))| {
                let there = if index % 3 == round % 3 { app } else { &server };
                there.app.stock.cancel_reservation(*user, *id)
            });
            for answer in join_all(give_back).await {
                assert_eq!(answer.unwrap().refusal, None);
            }
            // So that neither takes it for sold out.
            for server in [app, &server] {
                server.app.stock.cancel_reservation(UserId::new(), back[0].1).await.unwrap();
            }
            let (few, many) = tokio::join!(app.holds(drop, 5), server.holds(drop, 14));
            held.splice(0..0, few.into_iter().chain(many));
            held.extend(app.holds(drop, 1).await);
            assert_eq!(app.counts(drop).await, [0, i64::from(PAIRS), 0]);
        }
        server.stop().await;
    })
    .await;
}

/// PostgreSQL may send what a statement returns before it has committed what it did.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_not_told() {
    drive_still(async |app| {
        let (drop, stock) = (app.drop(&[("ONE", 9)]).await, &app.app.stock);
        let reserve = async |user| {
            let request = Reserve { drop_id: drop, size: None, idempotency_key: None, admission: None };
            stock.reserve(user, request).await
        };
        let [buyer, poison] = [UserId::new(), UserId::new()];
        let hold = reserve(buyer).await.unwrap().reservation.unwrap().id;
        app.sql("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'at the end'; END $$")
            .await;
        for (table, event, when) in [
            ("reservations", "INSERT", format!("NEW.user_id = '{poison}'")),
            ("purchases", "INSERT", "true".to_owned()),
            ("sessions", "INSERT OR UPDATE", "true".to_owned()),
            ("drops", "INSERT", "true".to_owned()),
        ] {
            app.sql(&format!(
                "CREATE CONSTRAINT TRIGGER planted AFTER {event} ON {table} DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION fail()"
            ))
            .await;
        }
        assert!(matches!(reserve(poison).await, Err(StockError::Unexpected(_))));
        assert!(matches!(stock.purchase(buyer, hold).await, Err(StockError::Unexpected(_))));
        assert_eq!(app.counts(drop).await, [8, 1, 0]);

        let sign_up = "mutation($input: SignupInput!) { signup(input: $input) { userErrors { code } } }";
        let input = json!({
            "input": { "username": "somebody", "email": "somebody@buyers.example", "password": "long enough 12" }
        });
        assert_eq!(app.error_code(None, sign_up, input).await, "INTERNAL_SERVER_ERROR");
        assert!(app.app.create_drop(shoe(&[("ONE", 1)], 60, 1)).await.is_err());
        assert_eq!(app.count("SELECT count(*) AS count FROM sessions").await, 0);
        assert_eq!(app.count("SELECT count(*) AS count FROM drops").await, 1);
    })
    .await;
}

/// Also what is changed by hand, without a version.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_changes_counts_from_the_next_batch_on() {
    drive_still(async |app| {
        let drop = app.drop_like(&[("ONE", 9)], |new| new.purchase_limit = 1).await;
        let [first, second] = &app.buyers(2).await[..] else { unreachable!() };
        app.hold(first, drop, "ONE").await;
        app.sql("UPDATE drops SET purchase_limit = 2, price_amount = 777").await;
        app.hold(second, drop, "ONE").await;
        let more = app.reserve(first, drop, None, None).await;
        assert_eq!(codes(&more), Vec::<&str>::new());
        let prices = "SELECT count(*) AS count FROM reservations WHERE price_amount = 777";
        assert_eq!(app.count(prices).await, 2);
    })
    .await;
}
