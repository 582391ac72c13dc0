//! A proxy of TCP that does what no gate may: it ends connections whenever the test says so, without a word.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How it ends connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// By a reset.
    Reset,
    /// By an end of stream in the middle of whatever it is.
    Fin,
}

/// The proxy; it ends with the test's runtime.
pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    rounds: watch::Sender<u64>,
}

impl Cutter {
    pub(crate) async fn start(to: SocketAddr, how: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let rounds = watch::Sender::new(0);
        let told = rounds.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, told.clone(), how));
            }
        });
        Self { address, rounds }
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.rounds.send_modify(|round| *round += 1);
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut told: watch::Receiver<u64>, how: Cut) {
    told.mark_unchanged();
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            biased;
            _ = told.changed() => break,
            read = client.read(&mut up) => match read {
                Ok(count) if count > 0 && server.write_all(&up[..count]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(count) if count > 0 && client.write_all(&down[..count]).await.is_ok() => {}
                _ => return,
            },
        }
    }
    match how {
        // With no time to linger, what is closed is reset.
        Cut::Reset => client.set_zero_linger().expect("no lingering"),
        Cut::Fin => {
            let _gone = client.shutdown().await;
            // Reading on keeps a reset from following.
            let read_on = async { while client.read(&mut up).await.is_ok_and(|count| count > 0) {} };
            let _late = tokio::time::timeout(std::time::Duration::from_secs(1), read_on).await;
        }
    }
}
