//! One member of the store: its address, and the one channel that everything to it goes through.

use std::time::Duration;

use etcd_client::{Channel as EtcdChannel, Client, ConnectOptions};
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint, Uri};

use super::error::{Failure, StoreError};

/// A connection that does not stand after this long is given up and the next member is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait for one answer: above etcd's usual leader change (1.6 s measured), below a second retry's patience.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent peer is noticed after interval + timeout, also by streams, which have no call time-out.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// One configured endpoint.
pub(super) struct Member {
    endpoint: String,
    address: Endpoint,
    link: OnceCell<Link>,
}

/// The open (lazily connecting) way to a member.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) client: Client,
}

impl Member {
    pub(super) fn new(endpoint: &str) -> Result<Self, StoreError> {
        let address = Endpoint::from(parse(endpoint)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self { endpoint: endpoint.to_owned(), address, link: OnceCell::new() })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Connecting is left to the first call, because a channel needs a runtime to live on.
    pub(super) async fn link(&self) -> Result<Link, Failure> {
        let open = || async {
            let channel = self.address.connect_lazy();
            let options = ConnectOptions::new().with_require_leader(true);
            let client = Client::from_channel(EtcdChannel::Tonic(channel.clone()), Some(options)).await;
            client.map(|client| Link { channel, client })
        };
        self.link.get_or_try_init(open).await.cloned().map_err(|error| Failure::NotDone(error.to_string()))
    }
}

fn parse(endpoint: &str) -> Result<Uri, StoreError> {
    let bad = |rule: &str| StoreError::BadEndpoint { endpoint: endpoint.to_owned(), rule: rule.to_owned() };
    let text = match endpoint.split_once("://") {
        None => format!("http://{endpoint}"),
        Some(("http", _)) => endpoint.to_owned(),
        Some(("https", _)) => return Err(bad("this build speaks to the store without TLS only")),
        Some(_) => return Err(bad("the scheme must be http")),
    };
    let uri: Uri = text.parse().map_err(|_| bad("it is not a host and a port"))?;
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none_or(|port| port == 0) {
        return Err(bad("it must name a host and a port"));
    }
    if uri.path_and_query().is_some_and(|path| path != "/") || uri.authority().is_some_and(|a| a.as_str().contains('@'))
    {
        return Err(bad("it must be a host and a port and nothing more"));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in ["127.0.0.1:2790", "http://10.0.0.1:2379", "http://[::1]:2379", "http://etcd-1.lan:2379/"] {
            parse(good).expect(good);
        }
    }

    #[test]
    fn a_malformed_endpoint_is_named_with_the_rule_and_an_example() {
        for bad in ["", "host", "http://", "http://h:2379/v3", "ftp://h:1", "https://h:2379", "h:0", "h:99999", "u@h:1"]
        {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("http://10.0.0.1:2379"), "{error}");
        }
    }
}
