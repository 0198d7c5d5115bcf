//! Answers from memory: right by version and by the clock, and nobody's but everyone's.

use serde_json::{Value, json};
use sneaker_drop::{
    drops::DropState,
    ids::{DropId, NodeId, UserId},
};

use crate::harness::{Socket, TestApp, at_once, codes, drive, drive_still, eventually, global};

const PAGE: &str = "query($id: ID!) { drop(id: $id) { status stockVersion availableStock heldStock soldStock
    activeReservations { totalCount nodes { id user { username } } } recentBuyers { id } }
    drops { nodes { id stockVersion } } }";

/// How many statements an answer costs. Nothing else may run: the background's statements are counted too, so the least
/// of many tries is told. `query` writes the question of each try.
async fn least_cost(app: &TestApp, query: impl Fn(u32) -> String, variables: &Value) -> u64 {
    let mut least = u64::MAX;
    for number in 0..40 {
        let query = query(number);
        let before = app.app.metrics.sql_statements.get();
        app.data(None, &query, variables.clone()).await;
        least = least.min(app.app.metrics.sql_statements.get() - before);
    }
    least
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mutation_did_the_next_read_shows() {
    drive(async |app| {
        let (buyers, drop) = (app.buyers(20).await, app.drop(&[("US 9", 30), ("US 10", 30)]).await);
        let id = json!({ "id": global(drop) });
        let mut version = 1;
        for (round, buyer) in buyers.iter().enumerate() {
            let hold = app.hold(buyer, drop, "US 9").await;
            version += 1;
            for (done, sold) in [("held", 0), ("bought", 1)] {
                if sold == 1 {
                    assert_eq!(codes(&app.purchase(buyer, &hold).await), [] as [&str; 0]);
                    version += 1;
                }
                let answer = app.data(None, PAGE, id.clone()).await;
                assert_eq!(answer["drop"]["stockVersion"], version, "{done} {round}");
                assert_eq!(answer["drops"]["nodes"][0]["stockVersion"], version);
                assert_eq!(answer["drop"]["soldStock"], round + sold);
                let held = answer["drop"]["activeReservations"]["nodes"].as_array().unwrap();
                assert_eq!(held.iter().map(|hold| &hold["id"]).collect::<Vec<_>>(), [&json!(hold)][sold..]);
                assert_eq!(answer["drop"]["recentBuyers"].as_array().unwrap().len(), (round + sold).min(3));
            }
        }
        let new = app.drop(&[("ONE", 1)]).await;
        let answer = app.data(None, PAGE, id).await;
        assert_eq!(answer["drops"]["nodes"][0]["id"], global(new), "a new drop is on the list at once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everyone_asks_costs_no_statement_and_a_new_question_neither() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 3)]).await);
        app.hold(&buyer, drop, "ONE").await;
        let id = json!({ "id": global(drop) });
        // The board answers from its first comparison with the database on.
        eventually(async || app.app.feed.generation().is_some()).await;
        assert_eq!(least_cost(app, |_| PAGE.to_owned(), &id).await, 0);
        assert_eq!(least_cost(app, |number| format!("{PAGE} # {number}"), &id).await, 0);
        for of_now in ["{ serverTime }", "query($id: ID!) { drop(id: $id) { id } serverTime }"] {
            assert!(least_cost(app, |_| of_now.to_owned(), &id).await > 0, "{of_now}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_an_end_and_a_deadline_show_when_they_come() {
    drive(async |app| {
        let soon = |ms| chrono::Utc::now() + chrono::TimeDelta::milliseconds(ms);
        let starts = app.drop_like(&[("ONE", 1)], |drop| drop.starts_at = Some(soon(700))).await;
        let ends = app.drop_like(&[("ONE", 1)], |drop| drop.ends_at = Some(soon(900))).await;
        let lapses = app.drop_like(&[("ONE", 1)], |drop| drop.hold_seconds = 1).await;
        let holder = app.buyer().await;
        let hold = app.hold(&holder, lapses, "ONE").await;
        let query = "query($a: ID!, $b: ID!, $c: ID!) { a: drop(id: $a) { status startsAt } b: drop(id: $b) { status endsAt }
            c: drop(id: $c) { activeReservations { nodes { expiresAt } } } drops { nodes { id } } }";
        let ids = json!({ "a": global(starts), "b": global(ends), "c": global(lapses) });
        let mut seen = Vec::new();
        while seen.last() != Some(&("LIVE".to_owned(), "ENDED".to_owned(), 0)) {
            let answer = app.data(None, query, ids.clone()).await;
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let clock = text(&app.data(None, "{ serverTime }", Value::Null).await["serverTime"]);
            // Nothing is shown before its time; that it is shown at all is what ends the loop.
            let [a, b] = ["a", "b"].map(|drop| text(&answer[drop]["status"]));
            assert!(a == "SCHEDULED" || clock >= text(&answer["a"]["startsAt"]), "{clock} {answer}");
            assert!(b == "LIVE" || clock >= text(&answer["b"]["endsAt"]), "{clock} {answer}");
            let lists = |drop: &str| answer["drops"]["nodes"].as_array().unwrap().contains(&json!({ "id": ids[drop] }));
            assert!(!lists("a") || clock >= text(&answer["a"]["startsAt"]), "{clock} {answer}");
            assert!(lists("b") || clock >= text(&answer["b"]["endsAt"]), "{clock} {answer}");
            let holds = answer["c"]["activeReservations"]["nodes"].as_array().unwrap().len();
            let shown = (a, b, holds);
            if seen.last() != Some(&shown) {
                seen.push(shown);
            }
        }
        assert_eq!(seen.first(), Some(&("SCHEDULED".to_owned(), "LIVE".to_owned(), 1)), "{seen:?}");
        assert_eq!(codes(&app.purchase(&holder, &hold).await), ["RESERVATION_EXPIRED"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_did_shows_soon() {
    drive(async |app| {
        let second = app.second().await;
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        eventually(async || second.counts(drop).await == [2, 0, 0]).await;
        app.hold(&buyer, drop, "ONE").await;
        eventually(async || second.counts(drop).await == [1, 1, 0]).await;
        second.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_were_overtaken_are_of_no_version() {
    drive(async |app| {
        let (buyer, drop) = (app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let pages = async |state: &DropState| {
            app.app.stock.load_first_pages(&[(drop, state.version)]).await.unwrap().remove(&drop).unwrap()
        };
        let before = app.app.drops.find(drop).await.unwrap().unwrap();
        assert!(pages(&before).await.are_of(&before));
        app.hold(&buyer, drop, "ONE").await;
        let after = app.app.drops.find(drop).await.unwrap().unwrap();
        let overtaken = pages(&before).await;
        assert_eq!(overtaken.active_count(), 1);
        assert!(!overtaken.are_of(&before) && !overtaken.are_of(&after));
        assert!(pages(&after).await.are_of(&after));
    })
    .await;
}

/// As after each change of a drop that many watch, or ask for, each in words of their own.
#[tokio::test]
async fn those_who_come_while_lists_are_read_read_the_next_ones_together() {
    drive_still(async |app| {
        let [first, second] = [app.held_drop(3).await, app.held_drop(2).await];
        let stock = &app.app.stock;
        let read = async |drops: Vec<(DropId, i32)>| {
            let pages = stock.load_first_pages(&drops).await.unwrap();
            assert_eq!(pages.len(), drops.len());
            for (drop, held) in [(first, 3), (second, 2)] {
                assert!(pages.get(&drop).is_none_or(|pages| pages.active_count() == held));
            }
        };
        let before = app.app.metrics.sql_statements.get();
        read(vec![(first, 4)]).await;
        let one = app.app.metrics.sql_statements.get() - before;

        let before = app.app.metrics.sql_statements.get();
        // Each list in another order: nobody has the one and waits for the other.
        let (first_of, second_of) = ((first, 4), (second, 3));
        let wanted = [vec![first_of], vec![second_of], vec![first_of, second_of], vec![second_of, first_of]];
        at_once(wanted.iter().cycle().take(100).map(|drops| read(drops.clone()))).await;
        let sent = app.app.metrics.sql_statements.get() - before;
        assert!(sent <= 4 * one, "{sent} statements, and {one} for one");

        // What is read later is what is there later.
        app.app.stock.cancel_drop(first).await.unwrap();
        let pages = stock.load_first_pages(&[(first, 4)]).await.unwrap();
        assert_eq!(pages[&first].active_count(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_is_not_kept_as_nobody() {
    drive(async |app| {
        eventually(async || app.app.feed.generation().is_some()).await;
        let person = UserId::new();
        let (query, id) = ("query($id: ID!) { node(id: $id) { id } }", NodeId::User(person).encode());
        let variables = json!({ "id": id });
        for _ in 0..3 {
            assert_eq!(app.data(None, query, variables.clone()).await, json!({ "node": null }));
        }
        app.sql(&format!(
            "INSERT INTO users (id, username, username_key, email, password_hash)
             VALUES ('{0}', 'late', 'late', 'late@example.com', 'none')",
            person.0
        ))
        .await;
        assert_eq!(app.data(None, query, variables).await, json!({ "node": { "id": id } }));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_viewer_is_shown_to_another() {
    drive(async |app| {
        let (one, other, drop) = (app.buyer().await, app.buyer().await, app.drop(&[("ONE", 2)]).await);
        let hold = app.hold(&one, drop, "ONE").await;
        app.cancel(&one, &hold).await;
        // Closed reservations are their owner's to see.
        let query = "query($id: ID!) { node(id: $id) { id } viewer { email } drops { nodes { id } } }";
        let variables = json!({ "id": hold });
        let mut emails = Vec::new();
        for buyer in [Some(&one), Some(&other), None, Some(&one)] {
            let answer = app.data(buyer.map(|it| it.token.as_str()), query, variables.clone()).await;
            let is_owner = buyer.is_some_and(|buyer| buyer.user_id == one.user_id);
            assert_eq!(answer["node"].is_object(), is_owner);
            emails.push(answer["viewer"]["email"].clone());
        }
        assert!(
            emails[0].is_string() && emails[0] == emails[3] && emails[0] != emails[1] && emails[2].is_null()
        );
        // Whoever shows a bad token is told so, also where the answer lies ready.
        for token in [None, None, Some("nonsense")] {
            let answer = app.ask(token, "{ drops { nodes { id } } }", Value::Null).await;
            assert_eq!(answer["errors"].is_array(), token.is_some(), "{answer}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_kept_for_one_way_of_asking_is_not_another_s() {
    drive(async |app| {
        let drop = app.drop(&[("ONE", 2)]).await;
        eventually(async || app.app.feed.generation().is_some()).await;
        let query = "query($id: ID!) { drop(id: $id) { id } }";
        let variables = json!({ "id": global(drop) });
        let body = json!({ "query": query, "variables": variables });
        for _ in 0..3 {
            for accept in ["application/json", "application/graphql-response+json"] {
                let request = app.client().post(app.url("/graphql")).header("accept", accept).json(&body);
                let answer = request.send().await.unwrap();
                assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(accept));
                assert_eq!(answer.json::<Value>().await.unwrap()["data"]["drop"]["id"], variables["id"]);
            }
            let got = app
                .client()
                .get(app.url("/graphql"))
                .query(&[("query", query), ("variables", &variables.to_string())]);
            assert_eq!(
                got.send().await.unwrap().json::<Value>().await.unwrap()["data"]["drop"]["id"],
                variables["id"]
            );
            // The same bytes by the other method are another request.
            let wrong = app.client().get(format!("{}?{body}", app.url("/graphql"))).send().await.unwrap();
            assert_eq!(wrong.status(), reqwest::StatusCode::BAD_REQUEST);
            let mut socket = Socket::ready(app.address, Value::Null).await;
            socket.subscribe("a", query, variables.clone()).await;
            assert_eq!(socket.hear().await["payload"]["data"]["drop"]["id"], variables["id"]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_kept_in_one_coding_is_not_told_in_another() {
    drive(async |app| {
        let sizes: Vec<String> = (1..=30).map(|size| format!("US {size}")).collect();
        let sizes: Vec<(&str, i32)> = sizes.iter().map(|size| (size.as_str(), 2)).collect();
        let drop = app.drop(&sizes).await;
        eventually(async || app.app.feed.generation().is_some()).await;
        let query = "query($id: ID!) { drop(id: $id) { sizes { id size totalStock availableStock } } }";
        let body = json!({ "query": query, "variables": { "id": global(drop) } });
        let ask = async |codings: &[&'static str]| {
            let mut request = app.client().post(app.url("/graphql")).json(&body);
            for coding in codings {
                request = request.header("accept-encoding", *coding);
            }
            let answer = request.send().await.unwrap();
            let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let (coding, vary) = (header("content-encoding"), header("vary"));
            assert_eq!(vary.as_deref(), Some("accept-encoding"), "{codings:?}");
            (coding, answer.bytes().await.unwrap())
        };
        let asked: [&[&str]; 5] = [&[], &["gzip"], &["br"], &["br", "gzip"], &["gzip;q=0, *"]];
        let mut before: Option<Vec<_>> = None;
        for _ in 0..2 {
            let mut all = Vec::new();
            for _ in 0..3 {
                for codings in asked {
                    let (coding, body) = ask(codings).await;
                    let is_packed = body.starts_with(&[0x1f, 0x8b]);
                    assert_eq!((coding.as_deref() == Some("gzip"), coding.is_some()), (is_packed, is_packed));
                    let takes_it = codings.contains(&"gzip");
                    assert_eq!(is_packed, takes_it, "{codings:?}");
                    all.push(body);
                }
            }
            // What was kept is told again, until the drop changes.
            assert!(all.chunks(asked.len()).all(|round| round == &all[..asked.len()]));
            assert!(before.is_none_or(|before| before.iter().zip(&all).all(|(old, new)| old != new)));
            before = Some(all);
            app.hold(&app.buyer().await, drop, "US 1").await;
        }
    })
    .await;
}
