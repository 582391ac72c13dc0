//! One member of the store: its address, and the one channel that everything to it goes through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Channel as EtcdChannel, Client, ConnectOptions, KvClient, WatchClient};
use handover_tls::{Connector, Expect, Tls};
use tonic::transport::{Channel, Endpoint, Uri};

use super::error::{Failure, StoreError};

/// A connection that does not stand after this long is given up and the next member is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// With TLS the other process has to run for it, and on a busy machine it gets its turn later than its kernel does.
const TLS_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for one answer: above etcd's usual leader change (1.6 s measured), below a second retry's patience.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A listing, or what a watch that was away is told at once, may be larger than gRPC's default limit of 4 MiB.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// One configured endpoint.
///
/// There are no HTTP/2 pings: etcd takes more than one in 5 s for abuse and closes the connection under whatever is in
/// flight (measured with 3.4.23 and 3.5.16: an idle watch was cut every 4 s). Instead every call has a limit, and a
/// connection on which one ran into it is not used again; a watch asks for progress (see [`super::watch`]).
pub(super) struct Member {
    endpoint: String,
    address: Endpoint,
    /// Another way to the endpoint than a TCP connection.
    dial: Option<Dial>,
    link: Mutex<Option<Link>>,
}

/// Makes a channel that connects when it is used.
pub type Dial = Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>;

/// The open (lazily connecting) way to a member.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) client: Client,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    number: u64,
}

impl Member {
    pub(super) fn new(endpoint: &str, tls: Option<&Tls>) -> Result<Self, StoreError> {
        let address = Endpoint::from(parse(endpoint, tls.is_some())?);
        let Some(tls) = tls else {
            let address = address.connect_timeout(CONNECT_TIMEOUT);
            return Ok(Self { endpoint: endpoint.to_owned(), address, dial: None, link: Mutex::default() });
        };
        let connector = Connector::new(tls.clone(), Expect::Host, TLS_CONNECT_TIMEOUT);
        let dial: Dial = Arc::new(move |address: &Endpoint| address.connect_with_connector_lazy(connector.clone()));
        Ok(Self { endpoint: endpoint.to_owned(), address, dial: Some(dial), link: Mutex::default() })
    }

    /// The same, reached by `dial`.
    pub(super) fn dialled(self, dial: Dial) -> Self {
        Self { dial: Some(dial), ..self }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Makes a call that must end within `limit`.
    pub(super) async fn within<T, F, C>(&self, limit: Duration, call: C) -> Result<T, Failure>
    where
        C: FnOnce(Link) -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let link = self.link().await?;
        let number = link.number;
        match tokio::time::timeout(limit, call(link)).await {
            Ok(result) => result,
            Err(_) => {
                self.abandon(number);
                Err(Failure::Uncertain(format!("no answer within {} ms", limit.as_millis())))
            }
        }
    }

    /// The next call connects anew; what still runs on the old connection goes on.
    pub(super) fn abandon(&self, number: u64) {
        self.current().take_if(|link| link.number == number);
    }

    /// Connecting is left to the first call, because a channel needs a runtime to live on.
    async fn link(&self) -> Result<Link, Failure> {
        if let Some(link) = self.current().clone() {
            return Ok(link);
        }
        let channel = self.dial.as_ref().map_or_else(|| self.address.connect_lazy(), |dial| dial(&self.address));
        let options = ConnectOptions::new().with_require_leader(true);
        let client = Client::from_channel(EtcdChannel::Tonic(channel.clone()), Some(options)).await;
        let client = client.map_err(|error| Failure::NotDone(error.to_string()))?;
        let kv = client.kv_client().max_decoding_message_size(MAX_REPLY_BYTES);
        let watch = client.watch_client().max_decoding_message_size(MAX_REPLY_BYTES);
        let link = || Link { channel, client, kv, watch, number: rand::random() };
        Ok(self.current().get_or_insert_with(link).clone())
    }

    fn current(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Which connection this is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// The URI to dial, always with `http`: whether it is with TLS is the connector's business.
fn parse(endpoint: &str, tls: bool) -> Result<Uri, StoreError> {
    let bad = |rule: &str| StoreError::BadEndpoint { endpoint: endpoint.to_owned(), rule: rule.to_owned() };
    let text = match (endpoint.split_once("://"), tls) {
        (None, _) => format!("http://{endpoint}"),
        (Some(("http", _)), false) => endpoint.to_owned(),
        (Some(("https", rest)), true) => format!("http://{rest}"),
        (Some(("https", _)), false) => {
            return Err(bad(
                "https needs the files of TLS: the store's ca, cert and key (agent: in [store]; command line: --store-ca, --store-cert, --store-key)",
            ));
        }
        (Some(("http", _)), true) => return Err(bad("it is plain text, although TLS files are given; write https")),
        (Some(_), _) => return Err(bad("the scheme must be http or https")),
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
            parse(good, false).expect(good);
        }
        for good in ["127.0.0.1:2379", "https://10.0.0.1:2379", "https://etcd-1.lan:2379/"] {
            parse(good, true).expect(good);
        }
    }

    #[test]
    fn a_malformed_endpoint_is_named_with_the_rule_and_an_example() {
        for bad in ["", "host", "http://", "http://h:2379/v3", "ftp://h:1", "https://h:2379", "h:0", "h:99999", "u@h:1"]
        {
            let error = parse(bad, false).expect_err(bad).to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("http://10.0.0.1:2379"), "{error}");
        }
    }

    #[test]
    fn a_scheme_that_contradicts_the_files_is_refused_with_the_fix() {
        let error = parse("https://h:2379", false).expect_err("no files").to_string();
        assert!(error.contains("--store-ca") && error.contains("[store]"), "{error}");
        let error = parse("http://h:2379", true).expect_err("plain").to_string();
        assert!(error.contains("write https"), "{error}");
    }
}
