//! Who may see and do what: every field of the schema, asked for by a stranger, another buyer, the owner and an
//! administrator. `docs/authorisation.md` is what came of it, looked through by a person. A field that is new, or an
//! answer that is another one, makes it differ; `UPDATE_AUTHORISATION=1` writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_graphql_parser::{
    parse_schema,
    types::{FieldDefinition, TypeDefinition, TypeKind, TypeSystemDefinition},
};
use serde_json::{Value, json};
use sneaker_drop::ids::{DropId, NodeId};

use crate::harness::{Buyer, Socket, TestApp, access_token, drive, global};

const TABLE: &str = "docs/authorisation.md";
const OPENING: &str = "# Who may see and do what

Every field of the schema, as a stranger, another buyer, the owner and an administrator get it. A test asks for all of
them and compares ([authorisation.rs](../tests/api/authorisation.rs)): a field without a row here fails it.

**shown**: a value. **null**: the field's own null. **nothing**: what the field belongs to is not there for them.
**done**: the mutation did it. In capitals: the code of the refusal.

";

/// Where an object of a type is to be had; `@` is where its field is asked for.
struct Place {
    title: &'static str,
    of: &'static str,
    query: String,
    /// JSON pointer to the object.
    at: &'static str,
}

/// What the fields are asked of.
struct Scene {
    drop: DropId,
    owner: Buyer,
    /// Holds and a purchase of the owner's.
    live: String,
    closed: String,
    lapsed: String,
    bought: String,
    purchase: String,
    /// The owner's, whom nobody else may find by it.
    secrets: Vec<String>,
    roles: [(&'static str, Option<Buyer>); 4],
}

impl Scene {
    async fn set(app: &TestApp) -> Self {
        let (owner, other, admin) = (app.buyer().await, app.buyer().await, app.admin().await);
        let drop = app
            .drop_like(&[("ONE", 40)], |new| {
                new.description = Some("Suede.".to_owned());
                new.image_url = Some("https://images.example/shoe.png".to_owned());
                new.ends_at = Some(chrono::Utc::now() + chrono::TimeDelta::days(1));
                new.purchase_limit = 40;
            })
            .await;
        let lapsed = app.hold(&owner, drop, "ONE").await;
        app.age_holds(drop, 1).await;
        let live = app.hold(&owner, drop, "ONE").await;
        let closed = app.hold(&owner, drop, "ONE").await;
        app.cancel(&owner, &closed).await;
        let bought = app.hold(&owner, drop, "ONE").await;
        let purchase = app.purchase(&owner, &bought).await["purchase"]["id"].as_str().unwrap().to_owned();
        let secrets = vec![format!("{}@buyers.example", owner.user_id)];
        let roles = [
            ("a stranger", None),
            ("another buyer", Some(other)),
            ("an administrator", Some(admin)),
            ("the owner", Some(owner.clone())),
        ];
        Self { drop, owner, live, closed, lapsed, bought, purchase, secrets, roles }
    }

    fn places(&self) -> Vec<Place> {
        let place = |title, of, query: String, at| Place { title, of, query, at };
        let drop = global(self.drop);
        let of_drop = |inner: &str| format!("{{ drop(id: \"{drop}\") {{ {inner} }} }}");
        let node = |id: &str, of: &str| format!("{{ node(id: \"{id}\") {{ ... on {of} {{ @ }} }} }}");
        let user = NodeId::User(self.owner.user_id).encode();
        vec![
            place("Query", "Query", "{ @ }".to_owned(), ""),
            place("Drop", "Drop", of_drop("@"), "/drop"),
            place("DropSize", "DropSize", of_drop("sizes { @ }"), "/drop/sizes/0"),
            place("Money", "Money", of_drop("price { @ }"), "/drop/price"),
            place("DropConnection", "DropConnection", "{ drops { @ } }".to_owned(), "/drops"),
            place("DropEdge", "DropEdge", "{ drops { edges { @ } } }".to_owned(), "/drops/edges/0"),
            place("PageInfo", "PageInfo", "{ drops { pageInfo { @ } } }".to_owned(), "/drops/pageInfo"),
            place("Reservation, live", "Reservation", node(&self.live, "Reservation"), "/node"),
            place("Reservation, given back", "Reservation", node(&self.closed, "Reservation"), "/node"),
            place("Reservation, lapsed", "Reservation", node(&self.lapsed, "Reservation"), "/node"),
            place("Reservation, bought", "Reservation", node(&self.bought, "Reservation"), "/node"),
            place(
                "ReservationConnection, of a drop",
                "ReservationConnection",
                of_drop("activeReservations { @ }"),
                "/drop/activeReservations",
            ),
            place(
                "ReservationEdge, of a drop",
                "ReservationEdge",
                of_drop("activeReservations { edges { @ } }"),
                "/drop/activeReservations/edges/0",
            ),
            place("Purchase", "Purchase", node(&self.purchase, "Purchase"), "/node"),
            place(
                "PurchaseConnection, one's own",
                "PurchaseConnection",
                "{ viewer { purchases { @ } } }".to_owned(),
                "/viewer/purchases",
            ),
            place(
                "PurchaseEdge, one's own",
                "PurchaseEdge",
                "{ viewer { purchases { edges { @ } } } }".to_owned(),
                "/viewer/purchases/edges/0",
            ),
            place("User", "User", node(&user, "User"), "/node"),
            place("Viewer, oneself", "Viewer", "{ viewer { @ } }".to_owned(), "/viewer"),
            place("Subscription", "Subscription", "subscription { @ }".to_owned(), ""),
            place(
                "StockUpdate",
                "StockUpdate",
                format!("subscription {{ stockUpdated(dropId: \"{drop}\") {{ @ }} }}"),
                "/stockUpdated",
            ),
        ]
    }

    /// A value for a required argument.
    fn argument(&self, name: &str) -> String {
        match name {
            "id" | "dropId" => format!("\"{}\"", global(self.drop)),
            "ids" => format!("[\"{}\"]", global(self.drop)),
            other => panic!("no value for the argument {other}"),
        }
    }

    /// The field with what it requires.
    fn select(&self, field: &FieldDefinition, types: &Types) -> String {
        let required = field.arguments.iter().filter(|it| !it.node.ty.node.nullable);
        let arguments: Vec<String> = required
            .map(|it| format!("{}: {}", it.node.name.node, self.argument(&it.node.name.node)))
            .collect();
        let arguments =
            if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
        let inner = if types.is_composite(&field.ty.node.to_string()) { " { __typename }" } else { "" };
        format!("{}{arguments}{inner}", field.name.node)
    }

    /// What comes of the mutation for somebody. Each is asked about the owner's things.
    async fn mutate(&self, app: &TestApp, name: &str, buyer: Option<&Buyer>) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let account = |number: usize| {
            json!({ "username": format!("person_{number}"), "email": format!("person{number}@people.example"),
                    "password": "a long enough one" })
        };
        let signup = "mutation($input: SignupInput!) { signup(input: $input) { session { refreshToken } userErrors { code } } }";
        let signed_up = async || {
            let data = app.data(None, signup, json!({ "input": account(number) })).await;
            data["signup"]["session"]["refreshToken"].as_str().unwrap().to_owned()
        };
        let (input, kind) = match name {
            "signup" => (account(number), "SignupInput!"),
            "login" => {
                signed_up().await;
                let account = account(number);
                (json!({ "email": account["email"], "password": account["password"] }), "LoginInput!")
            }
            "refresh" => (json!({ "refreshToken": signed_up().await }), "RefreshInput!"),
            "logout" => (json!({}), "LogoutInput"),
            "createDrop" => {
                let price = json!({ "amount": 100, "currency": "USD" });
                (json!({ "name": "Shoe", "price": price, "stock": 1 }), "CreateDropInput!")
            }
            "cancelDrop" => (json!({ "dropId": global(app.drop(&[("ONE", 1)]).await) }), "CancelDropInput!"),
            "reserve" => (json!({ "dropId": global(self.drop) }), "ReserveInput!"),
            "purchase" | "cancelReservation" => {
                let hold = app.hold(&self.owner, self.drop, "ONE").await;
                let kind = if name == "purchase" { "PurchaseInput!" } else { "CancelReservationInput!" };
                (json!({ "reservationId": hold }), kind)
            }
            other => panic!("nobody has said who may {other}"),
        };
        let inner = if name == "logout" { "endedSessions" } else { "userErrors { code }" };
        let query = format!("mutation($input: {kind}) {{ {name}(input: $input) {{ {inner} }} }}");
        // Of a session of its own, which `logout` may end.
        let token = buyer.map(|buyer| access_token(buyer.user_id));
        let answer = app.ask(token.as_deref(), &query, json!({ "input": input })).await;
        let code = answer["errors"][0]["extensions"]["code"].as_str();
        code.or(answer["data"][name]["userErrors"][0]["code"].as_str()).unwrap_or("done").to_owned()
    }

    /// What somebody sees at a place.
    async fn look(&self, app: &TestApp, query: &str, at: &str, buyer: Option<&Buyer>) -> String {
        let answer = match query.starts_with("subscription") {
            true => {
                let payload =
                    buyer.map(|buyer| json!({ "authorization": format!("Bearer {}", buyer.token) }));
                let mut socket = Socket::ready(app.address, payload.unwrap_or_default()).await;
                socket.subscribe("1", query, json!({})).await;
                socket.hear().await["payload"].take()
            }
            false => app.ask(buyer.map(|buyer| buyer.token.as_str()), query, json!({})).await,
        };
        if let Some(code) = answer["errors"][0]["extensions"]["code"].as_str() {
            return code.to_owned();
        }
        let is_owner = buyer.is_some_and(|buyer| buyer.user_id == self.owner.user_id);
        let told = answer.to_string();
        let secret = self.secrets.iter().find(|secret| told.contains(*secret));
        assert!(is_owner || secret.is_none(), "{query} tells {secret:?} to another: {told}");
        let (object, field) = at.rsplit_once('/').unwrap();
        match answer["data"].pointer(object) {
            None | Some(Value::Null) => "nothing".to_owned(),
            Some(object) if object[field].is_null() => "null".to_owned(),
            Some(_) => "shown".to_owned(),
        }
    }
}

struct Types(BTreeMap<String, TypeDefinition>);

impl Types {
    fn read() -> Self {
        let document = parse_schema(sneaker_drop::graphql::sdl()).unwrap();
        let types = document.definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => {
                Some((definition.node.name.node.to_string(), definition.node))
            }
            _ => None,
        });
        Self(types.collect())
    }

    fn fields(&self, of: &str) -> Vec<&FieldDefinition> {
        match self.0.get(of).map(|definition| &definition.kind) {
            Some(TypeKind::Object(object)) => object.fields.iter().map(|field| &field.node).collect(),
            _ => Vec::new(),
        }
    }

    fn is_composite(&self, of: &str) -> bool {
        let kind = self.0.get(bare(of)).map(|definition| &definition.kind);
        matches!(kind, Some(TypeKind::Object(_) | TypeKind::Interface(_) | TypeKind::Union(_)))
    }

    fn objects(&self) -> BTreeSet<&str> {
        let objects = self.0.iter().filter(|(_, it)| matches!(it.kind, TypeKind::Object(_)));
        objects.map(|(name, _)| name.as_str()).collect()
    }

    /// Objects to which a way leads from queries and subscriptions.
    fn readable(&self) -> BTreeSet<&str> {
        let mut found: BTreeSet<&str> = BTreeSet::new();
        let mut next = vec!["Query", "Subscription"];
        while let Some(name) = next.pop() {
            let implementing = self.0.iter().filter(|(_, it)| match &it.kind {
                TypeKind::Object(object) => object.implements.iter().any(|it| it.node == name),
                _ => false,
            });
            next.extend(implementing.map(|(name, _)| name.as_str()).filter(|it| !found.contains(it)));
            let Some((name, TypeKind::Object(object))) =
                self.0.get_key_value(name).map(|(n, it)| (n, &it.kind))
            else {
                continue;
            };
            if found.insert(name) {
                next.extend(object.fields.iter().filter_map(|field| {
                    self.0.get_key_value(bare(&field.node.ty.node.to_string())).map(|(name, _)| name.as_str())
                }));
            }
        }
        found
    }
}

fn bare(of: &str) -> &str {
    of.trim_matches(['[', ']', '!'])
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_and_does_what_the_table_says() {
    drive(async |app| {
        let (types, scene) = (Types::read(), Scene::set(app).await);
        let places = scene.places();
        let readable = types.readable();
        let placed: BTreeSet<&str> = places.iter().map(|place| place.of).collect();
        assert_eq!(placed, readable, "every type that can be read has a place in the test");

        let mut table = OPENING.to_owned();
        let names: Vec<&str> = scene.roles.iter().map(|(name, _)| *name).collect();
        let mut section = |title: &str, rows: Vec<(String, Vec<String>)>| {
            writeln!(table, "## {title}\n\n| field | {} |\n|---|---|---|---|---|", names.join(" | "))
                .unwrap();
            for (field, told) in rows {
                writeln!(table, "| `{field}` | {} |", told.join(" | ")).unwrap();
            }
            table.push('\n');
        };
        for place in &places {
            let mut rows = Vec::new();
            for field in types.fields(place.of) {
                let query = place.query.replace('@', &scene.select(field, &types));
                let at = format!("{}/{}", place.at, field.name.node);
                let mut told = Vec::new();
                for (_, buyer) in &scene.roles {
                    told.push(scene.look(app, &query, &at, buyer.as_ref()).await);
                }
                rows.push((field.name.node.to_string(), told));
            }
            section(place.title, rows);
        }
        let mut rows = Vec::new();
        for field in types.fields("Mutation") {
            let name = field.name.node.as_str();
            let mut told = Vec::new();
            for (_, buyer) in &scene.roles {
                told.push(scene.mutate(app, name, buyer.as_ref()).await);
            }
            rows.push((name.to_owned(), told));
        }
        section("Mutation, about the owner's things", rows);
        let only = types.objects().into_iter().filter(|name| !readable.contains(name) && *name != "Mutation");
        let only: Vec<String> = only.map(|name| format!("- `{name}`")).collect();
        table.push_str("## Told to whoever made the mutation\n\n");
        table.push_str(&only.join("\n"));
        table.push('\n');

        if std::env::var_os("UPDATE_AUTHORISATION").is_some() {
            std::fs::write(TABLE, &table).unwrap();
        }
        let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
        let differ: Vec<(&str, &str)> =
            table.lines().zip(committed.lines()).filter(|(found, written)| found != written).collect();
        assert!(table == committed, "{TABLE} says otherwise: {differ:#?}");
    })
    .await;
}
