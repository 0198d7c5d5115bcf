//! Transport over NATS, for many servers: it takes that work off PostgreSQL.

use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Link, LinkError, Transport};

/// The subject that the servers of one site share. Another site on the same NATS needs a NATS account of its own.
const SUBJECT: &str = "sneaker-drop.hints";

/// The transport, with a URL such as `nats://user:password@host:4222`, or `tls://..`.
pub struct Nats(SecretString);

impl Nats {
    /// Creates the transport over the NATS server at `url`.
    pub fn new(url: &SecretString) -> Self {
        Self(url.clone())
    }
}

impl Transport for Nats {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        async {
            // One reconnect by the client; after that the link fails, so that the outage is logged and a new link made.
            let options = ConnectOptions::new().max_reconnects(1);
            let client = options.connect(self.0.expose_secret()).await.map_err(broken)?;
            let heard = client.subscribe(SUBJECT).await.map_err(broken)?;
            // Ensures that the NATS server has the subscription before this server counts as connected.
            client.flush().await.map_err(broken)?;
            Ok(Box::new(Subscribed { client, heard }) as Box<dyn Link>)
        }
        .boxed()
    }
}

struct Subscribed {
    client: Client,
    heard: Subscriber,
}

impl Link for Subscribed {
    fn send(&mut self, text: String) -> BoxFuture<'_, Result<(), LinkError>> {
        async move {
            self.client.publish(SUBJECT, text.into()).await.map_err(broken)?;
            self.client.flush().await.map_err(broken)
        }
        .boxed()
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<String, LinkError>> {
        async {
            let heard = self.heard.next().await;
            let heard = heard.ok_or_else(|| LinkError::Broken("NATS: the connection is gone".to_owned()))?;
            Ok(String::from_utf8_lossy(&heard.payload).into_owned())
        }
        .boxed()
    }
}

fn broken(error: impl std::fmt::Display) -> LinkError {
    LinkError::Broken(format!("NATS: {error}"))
}
