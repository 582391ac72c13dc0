//! The `tcp` probe: a connection is accepted.

use tokio::net::TcpStream;

use super::check::{Target, failed};
use super::condition::Reading;
use super::settings::TcpCheck;

pub(super) async fn look(check: &TcpCheck, target: &Target) -> Reading {
    let address = target.address(check.port);
    match TcpStream::connect(address).await {
        Ok(_) => Reading::Good("accepts connections".to_owned()),
        Err(error) => failed(&format!("cannot connect to {address}"), &error),
    }
}
