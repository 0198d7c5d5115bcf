//! What an answer costs the database.

use serde_json::{Value, json};

use crate::harness::{TestApp, codes, drive_still, global};

const EVERYTHING: &str = "query($first: Int) { drops(first: $first) {
    pageInfo { hasNextPage }
    nodes {
        id name description imageUrl price { amount currency } status startsAt endsAt holdSeconds purchaseLimit
        totalStock availableStock heldStock soldStock stockVersion createdAt
        sizes { id size totalStock availableStock heldStock soldStock }
        activeReservations { totalCount pageInfo { endCursor } nodes {
            id size status pairNumber expiresAt user { id username } drop { id stockVersion } } }
        recentBuyers(first: 3) { id pairNumber purchasedAt user { username } drop { id } reservation { id status } }
    }
} }";

/// Statements that a page costs a server that has nothing in memory yet, and one that has.
async fn statements(app: &TestApp, first: usize) -> (u64, u64) {
    let server = app.still_second().await;
    let cost = async || {
        let before = server.app.metrics.sql_statements.get();
        let answer = server.data(None, EVERYTHING, json!({ "first": first })).await;
        assert_eq!(answer["drops"]["nodes"].as_array().unwrap().len(), first);
        server.app.metrics.sql_statements.get() - before
    };
    let costs = (cost().await, cost().await);
    server.stop().await;
    costs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_everything_takes_a_fixed_small_number_of_statements() {
    drive_still(async |app| {
        let buyers = app.buyers(3).await;
        for _ in 0..20 {
            let drop = app.drop(&[("US 9", 3), ("US 10", 3)]).await;
            for (index, buyer) in buyers.iter().enumerate() {
                let hold = app.hold(buyer, drop, "US 9").await;
                if index > 0 {
                    assert_eq!(codes(&app.purchase(buyer, &hold).await), [] as [&str; 0]);
                }
            }
        }
        let (one, twenty) = (statements(app, 1).await, statements(app, 20).await);
        // Drops with sizes; live holds, people, versions; buyers, people, reservations of the purchases. Who has the lists
        // of a version in memory, and the names, reads the drops and the reservations.
        assert_eq!((one, twenty), ((7, 2), (7, 2)));
        let most = app.data(None, EVERYTHING, json!({ "first": 50 })).await;
        assert_eq!(
            most["drops"]["nodes"].as_array().unwrap().len(),
            20,
            "the largest page is within the limits"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_on_where_they_stopped() {
    drive_still(async |app| {
        let mut drops = Vec::new();
        for _ in 0..5 {
            drops.push(global(app.drop(&[("ONE", 1)]).await));
        }
        drops.reverse();
        let query =
            "query($after: String, $reverse: Boolean) { drops(first: 2, after: $after, reverse: $reverse) {
            nodes { id } edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
        for reverse in [json!(false), json!(true), Value::Null] {
            let (mut seen, mut after) = (Vec::new(), Value::Null);
            loop {
                let page =
                    app.data(None, query, json!({ "after": after, "reverse": reverse })).await["drops"]
                        .take();
                assert_eq!(page["pageInfo"]["hasPreviousPage"], json!(!after.is_null()));
                assert_eq!(page["pageInfo"]["startCursor"], page["edges"][0]["cursor"]);
                seen.extend(
                    page["nodes"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|node| node["id"].as_str().unwrap().to_owned()),
                );
                if page["pageInfo"]["hasNextPage"] == false {
                    break;
                }
                after = page["pageInfo"]["endCursor"].clone();
            }
            if reverse == true {
                seen.reverse();
            }
            assert_eq!(seen, drops);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_argument_means_its_default_and_a_wild_one_is_refused() {
    drive_still(async |app| {
        app.drop(&[("ONE", 1)]).await;
        let query = "query($first: Int, $statuses: [DropStatus!], $reverse: Boolean, $holds: Int, $buyers: Int) {
            drops(first: $first, statuses: $statuses, reverse: $reverse) {
                nodes { activeReservations(first: $holds) { totalCount } recentBuyers(first: $buyers) { id } } } }";
        for variables in [json!({}), json!({ "first": null, "statuses": null, "reverse": null, "holds": null })] {
            assert_eq!(app.data(None, query, variables).await["drops"]["nodes"].as_array().unwrap().len(), 1);
        }
        for bad in ["first", "holds", "buyers"] {
            for value in [51, -1, i32::MAX] {
                assert_eq!(app.error_code(None, query, json!({ bad: value })).await, "BAD_USER_INPUT", "{bad} {value}");
            }
        }
        let after = "query($after: String) { drops(after: $after) { nodes { id } } }";
        for bad in ["", "x", &"A".repeat(33), &"\u{0}".repeat(32)] {
            assert_eq!(app.error_code(None, after, json!({ "after": bad })).await, "BAD_USER_INPUT");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_of_one_list() {
    drive_still(async |app| {
        let drop = app.drop_like(&[("ONE", 2)], |new| new.purchase_limit = 2).await;
        let buyer = app.buyer().await;
        app.purchase(&buyer, &app.hold(&buyer, drop, "ONE").await).await;
        app.hold(&buyer, drop, "ONE").await;
        let lists = |after: &str| {
            [
                format!("drops(first: 1{after}) {{ pageInfo {{ endCursor }} }}"),
                format!("drops(first: 1) {{ nodes {{ activeReservations(first: 1{after}) {{ pageInfo {{ endCursor }} }} }} }}"),
                format!("viewer {{ reservations(first: 1{after}) {{ pageInfo {{ endCursor }} }} }}"),
                format!("viewer {{ purchases(first: 1{after}) {{ pageInfo {{ endCursor }} }} }}"),
            ]
        };
        let ends = ["/drops/", "/drops/nodes/0/activeReservations/", "/viewer/reservations/", "/viewer/purchases/"];
        for (own, (list, end)) in lists("").iter().zip(ends).enumerate() {
            let answer = app.data(Some(&buyer.token), &format!("{{ {list} }}"), json!({})).await;
            let cursor = answer.pointer(&format!("{end}pageInfo/endCursor")).unwrap().as_str().unwrap();
            for (other, list) in lists(&format!(", after: \"{cursor}\"")).iter().enumerate() {
                let answer = app.ask(Some(&buyer.token), &format!("{{ {list} }}"), json!({})).await;
                let code = answer.pointer("/errors/0/extensions/code").and_then(Value::as_str);
                assert_eq!(code, (other != own).then_some("BAD_USER_INPUT"), "{own} {other}: {answer}");
            }
        }
    })
    .await;
}

/// Resolvers and loads share the pool: neither may keep a connection while it waits for the other.
#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_connections_do_not_wait_for_each_other() {
    drive_still(async |app| {
        let id = global(app.drop(&[("ONE", 1)]).await);
        let times: String = (0..16).map(|n| format!("t{n}: serverTime ")).collect();
        let query = format!("query($id: ID!) {{ {times} drop(id: $id) {{ name }} viewer {{ email }} }}");
        let asked = (0..16).map(|_| app.data(None, &query, json!({ "id": id })));
        let answers = crate::harness::at_once(asked).await;
        assert!(answers.iter().all(|answer| answer["drop"]["name"] == "Meridian Low 'Chalk Gum'"));
    })
    .await;
}
