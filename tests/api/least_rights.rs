//! A server needs few rights: what `docs/security.md` grants is enough, and no more is needed.

use diesel_async::SimpleAsyncConnection as _;
use serde_json::json;
use sneaker_drop::client::Client;
use uuid::Uuid;

use crate::{
    harness::{codes, drive, url_as},
    program::run,
};

/// The grants as the document has them, for this role.
fn grants(role: &str) -> String {
    let text = std::fs::read_to_string("docs/security.md").unwrap();
    let (_, rest) = text.split_once("```sql\n").expect("the grants");
    let (grants, _) = rest.split_once("```").unwrap();
    assert!(grants.contains("GRANT"), "{grants}");
    grants.replace("sneaker_drop_server", role)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_with_the_rights_of_the_document() {
    drive(async |app| {
        let role = format!("server_{}", Uuid::now_v7().simple());
        let mut owner = app.connection().await;
        owner.batch_execute(&grants(&role)).await.unwrap();
        let server = app.second_as(&role).await;
        server.app.check_ready().await.unwrap();

        let here = Client::at(std::net::Ipv4Addr::LOCALHOST.into());
        server.app.accounts.signup("ada", "ada@example.com", "analytical engine", here).await.unwrap();
        let session =
            server.app.accounts.login("ada@example.com", "analytical engine", here).await.unwrap().unwrap();
        let traded = server.app.accounts.refresh(&session.refresh).await.unwrap();
        server.app.accounts.logout(Some(&traded.refresh), None, true).await.unwrap();

        let (buyer, drop) = (app.buyer().await, server.drop(&[("ONE", 3)]).await);
        let hold = server.hold(&buyer, drop, "ONE").await;
        assert_eq!(codes(&server.purchase(&buyer, &hold).await), [""; 0]);
        let other = app.buyer().await;
        let given_back = server.hold(&other, drop, "ONE").await;
        assert_eq!(codes(&server.cancel(&other, &given_back).await), [""; 0]);
        server.app.stock.cancel_drop(drop).await.unwrap();
        let viewer = "{ viewer { reservations { totalCount } purchases { nodes { id } } } }";
        let viewer = server.data(Some(&buyer.token), viewer, json!({})).await;
        assert_eq!(viewer["viewer"]["reservations"]["totalCount"], 1);

        for forbidden in [
            "DROP TABLE purchases",
            "DELETE FROM stock_events",
            "UPDATE stock_events SET sold = '{}'",
            "UPDATE purchases SET price_amount = 1",
            "CREATE TABLE own (id integer)",
        ] {
            let mut serving = app.connection_as(&role).await;
            let refused = serving.batch_execute(forbidden).await.unwrap_err().to_string();
            assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{refused}");
        }
        server.stop().await;

        // Where no migration is due, nobody has to own anything; where one is, it is said who has to.
        let url = url_as(&app.database, &role).await;
        let settings = [("DATABASE_URL", url.as_str())];
        let email = format!("{}@buyers.example", buyer.user_id);
        let (output, _, err) = run(&["admin", "grant", &email], &settings).await;
        assert!(output.status.success(), "{err}");
        let forget = "DELETE FROM __diesel_schema_migrations
                      WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)";
        owner.batch_execute(forget).await.unwrap();
        let (output, _, err) = run(&["admin", "grant", &email], &settings).await;
        assert!(output.status.code() == Some(1) && err.contains("as the owner"), "{err}");
    })
    .await;
}
